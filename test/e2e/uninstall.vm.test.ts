/**
 * The release archive's `install.sh`, where there is no network and nothing to build with; then `install.sh
 * --uninstall` while sandboxes run: nothing of them and of their network stays. In namespaces of its own, with
 * directories of the test where an installation would be, so an installed instance and the host's network are not
 * touched.
 */

import { expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dir, "../..")
const cacheDir = process.env["BHATTI_TEST_CACHE"] ?? "/var/cache/bhatti"

/** The places that an installation writes to, as this test's own. */
const places = ["/var/lib", "/var/log", "/run", "/usr/local/bin", "/etc/systemd/system"]

const script = `
for place in ${places.join(" ")}; do mount --bind "$HOME$place" "$place"; done
# It shows the network of the process that mounts it.
mount -t sysfs sysfs /sys
ip link set lo up
for tool in go npm node cc gcc; do
  found=$(readlink -f "$(command -v $tool)") || continue
  mount --bind /dev/null "$found"
done
! command -v go && ! command -v npm && ! command -v gcc
test ${cacheDir} = /var/cache/bhatti || mount --bind ${cacheDir} /var/cache/bhatti
mkdir -m 700 /var/lib/bhatti
printf 'listen: 127.0.0.1:8080\nuid_base: %s\n' $UID_BASE >/var/lib/bhatti/config.yaml
tar -xzf $HOME/release/bhatti-server-linux-x64.tar.gz -C $HOME
echo "== installed"
$HOME/bhatti-server/install.sh
bhatti=/usr/local/bin/bhatti
$HOME/bhatti-server/install.sh >$HOME/again.log
grep -A1 "^[468]/8" $HOME/again.log
curl -fsSL http://127.0.0.1:8080/install/SHA256SUMS | sed 's/^[0-9a-f]*  /served: /'
curl -fsSL http://127.0.0.1:8080/install | sh
{
  $bhatti create --name one
  $bhatti create --name two --egress deny --allow-host example.com
  $bhatti exec two -- true
} >&2
show() {
  echo "== $1 tables"; nft list tables
  echo "== $1 links"; ip -o link show | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'
  echo "== $1 routes"; ip -4 route show table main
  echo "== $1 files"; find /run /usr/local/bin -mindepth 1 ! -name mount -printf '%P\\n'
  echo "== $1 processes"; cat /proc/[0-9]*/comm 2>/dev/null | grep -E '^(qemu|dnsmasq|bhatti)' | sort | uniq -c | sed "s/^ *//"
}
decoys=()
decoy() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@" >&2 & decoys+=($!); }
for id in $(ls /var/lib/bhatti/sandboxes); do
  decoy /usr/bin/python3 ${root}/test/support/decoy.py /usr/bin/qemu-system-x86_64 -name $id -nodefaults
  decoy /usr/bin/qemu-system-x86_64 -name $id -machine none -nodefaults -display none
done
for config in /run/bhatti_*/*/dnsmasq.conf; do
  decoy /usr/bin/python3 ${root}/test/support/decoy.py /usr/sbin/dnsmasq --conf-file=$config
done
echo "== before decoys"; printf '%s\\n' "\${decoys[@]}"
show before
$HOME/bhatti-server/install.sh --uninstall >&2
echo "== after decoys"
for pid in "\${decoys[@]}"; do kill $pid && echo lives; done
wait
show after
echo "== after sandboxes"; ls /var/lib/bhatti/sandboxes | wc -l
`

test("a release archive installs with neither network, npm, Go nor a compiler, again it changes nothing; an uninstall while sandboxes run leaves nothing of them and of their network, keeps their disks, and ends no other user's process", async () => {
  const home = mkdtempSync("/tmp/bhatti-test-")
  try {
    for (const place of places) mkdirSync(join(home, place), { recursive: true })
    const release = [
      "run",
      "scripts/release.ts",
      "--quick",
      "--only",
      "server",
      "--out",
      join(home, "release"),
    ]
    const packed = Bun.spawnSync([process.execPath, ...release], { cwd: root })
    expect([packed.exitCode, packed.stderr.toString()]).toEqual([0, ""])
    const kinds = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    const child = Bun.spawn(["unshare", ...kinds, "bash", "-ec", script], {
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME: home, UID_BASE: `${1_000_000 + process.pid}` },
      stdout: "pipe",
      stderr: "pipe",
    })
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    expect([exitCode, exitCode === 0 ? "" : `${stdout.slice(-3000)}\n${stderr}`]).toEqual([0, ""])
    const shown: Record<string, string[]> = Object.fromEntries(
      stdout
        .split(/^== /m)
        .slice(1)
        .map((part) => [part.split("\n")[0] ?? "", part.split("\n").slice(1, -1)]),
    )
    const installed = shown["installed"]?.join("\n") ?? ""
    expect(installed).toContain("2/8 npm packages, 3/8 build: not needed, the program is in this archive\n")
    expect(installed).toMatch(/exec -- echo hello: \d+ ms, hello\n/)
    expect(installed).toContain("bhatti is ready, after ")
    expect(installed).toMatch(/4\/8 \S+ \.\.\.\n {2}is up to date\n/)
    expect(installed).toMatch(/6\/8 daemon \.\.\.\n {2}runs already/)
    expect(installed).toContain(
      "/usr/local/bin/bhatti is the server's, and the command line too: nothing to install",
    )
    expect(installed).toMatch(/8\/8 [^\n]+\n {2}all there\n/)
    expect(installed).toContain("served: bhatti-server-linux-x64.tar.gz\nserved: bhatti-linux-x64\n")
    const before = (what: string) => shown[`before ${what}`]?.join("\n") ?? ""
    expect(shown["before tables"]).toHaveLength(2)
    // The anchor, two sandboxes, and what the pool has by then.
    expect(shown["before links"]?.filter((name) => name.startsWith("bh")).length).toBeGreaterThan(2)
    expect(before("routes")).toContain("10.209.")
    expect(before("files")).toContain("dnsmasq.conf")
    expect(before("processes")).toMatch(/[2-9] qemu-system/)
    expect(before("processes")).toContain("dnsmasq")
    // Two for each sandbox, of which the pool has some too, and one for each name server.
    expect(shown["before decoys"]?.length).toBeGreaterThanOrEqual(6)

    expect(shown).toMatchObject({
      "after decoys": Array.from({ length: shown["before decoys"]?.length ?? 0 }, () => "lives"),
      "after tables": [],
      "after links": ["lo"],
      "after routes": [],
      "after files": [],
      "after processes": [],
      "after sandboxes": ["2"],
    })
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}, 600_000)
