/**
 * Name servers of sandboxes in the default configuration, with real dnsmasq processes in namespaces of the test: what
 * reaches the name servers that /etc/resolv.conf of the host names, and what does not.
 */

import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import type { NetPolicy } from "@bhatti/contract/network"
import type { Closed, Order } from "../../test/support/name-servers-alone.ts"
import { profileOf } from "./resolver.ts"

const trial = resolve(import.meta.dir, "../../test/support/name-servers-alone.ts")
const isRoot = process.getuid?.() === 0
const canRun = isRoot && Bun.which("dnsmasq") !== null && Bun.which("nft") !== null
if (!canRun) console.log("skipped: name servers need root, dnsmasq and nft")

const [first, second, sixth] = ["203.0.113.53", "127.0.0.53", "fd00::53"]
const owner = "usr_00000000aa"
const closed = (policy: Partial<NetPolicy>): Closed => ({
  owner,
  policy: { default: "deny", allow_hosts: [], allow_cidrs: [], ...policy },
})
const policies = {
  deny: closed({}),
  "allow-host": closed({ allow_hosts: ["api.example.com"] }),
  "allow-host of all below": closed({ allow_hosts: ["*.example.com"] }),
  "allow-cidr": closed({ allow_cidrs: ["203.0.113.0/24"] }),
  public: closed({ default: "public" }),
}
type Kind = keyof typeof policies

/** Each is asked of each policy. */
const names = [
  "example.com",
  "api.example.com",
  "deep.api.example.com",
  "other.example.com",
  "secret.tunnel.example.org",
  "9.113.0.203.in-addr.arpa",
]
/** The ones that may be passed on. */
const permitted: Record<Kind, string[]> = {
  deny: [],
  "allow-host": ["api.example.com"],
  "allow-host of all below": ["api.example.com", "deep.api.example.com", "other.example.com"],
  "allow-cidr": [],
  public: names,
}

class Alone implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">
  readonly #lines: AsyncGenerator<string>
  readonly #home = mkdtempSync("/tmp/bhatti-test-")
  /** Lines for the daemon's log. */
  readonly reports: string[] = []

  constructor() {
    const set = [
      `cp -a /etc ${this.#home}/etc`,
      `mount --bind ${this.#home}/etc /etc`,
      "mount -t tmpfs tmpfs /run",
      // It shows the network of its mounter.
      "mount -t sysfs sysfs /sys",
      "ip link set lo up",
      `ip address add ${first}/32 dev lo`,
      `ip address add ${sixth}/128 dev lo nodad`,
      'exec "$@"',
    ].join(" && ")
    const kinds = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    const words = [process.execPath, trial, join(this.#home, "data"), first, second, sixth]
    this.#child = Bun.spawn(["unshare", ...kinds, "sh", "-c", set, "sh", ...words], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    })
    this.#lines = linesOf(this.#child.stdout)
  }

  static async open(hostFile: string): Promise<Alone> {
    const alone = new Alone()
    expect(await alone.#next()).toBe("ready")
    await alone.host(hostFile)
    return alone
  }

  async do(order: Order): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`)
    await this.#child.stdin.flush()
    const answer = (await this.#next()) as { ok: unknown } | { error: string }
    if ("error" in answer) throw new Error(answer.error)
    return answer.ok
  }

  async run(command: string): Promise<string> {
    return String(await this.do({ do: "run", command }))
  }

  /** Writes the host's file, as a program does that replaces it. */
  async host(text: string): Promise<void> {
    await this.run(
      `printf '%b' '${text.replaceAll("\n", "\\n")}' >/etc/resolv.part && mv /etc/resolv.part /etc/resolv.conf`,
    )
  }

  start(...kinds: Kind[]): Promise<unknown> {
    return this.do({
      do: "start",
      attached: kinds.map((kind, index) => ({ ...policies[kind], slot: index + 1 })),
    })
  }

  ask(kind: Kind, asked: string[], how: { over?: "udp" | "tcp"; kind?: number } = {}): Promise<unknown> {
    return this.do({ do: "ask", ...policies[kind], names: asked, ...how })
  }

  /** Names that have come to the host's name servers since the last time. */
  async passedOn(): Promise<string[]> {
    const { asked, reports } = (await this.do({ do: "asked" })) as { asked: string[]; reports: string[] }
    this.reports.push(...reports)
    return [...new Set(asked.map((line) => line.split(" ")[1] ?? ""))].sort()
  }

  async #next(): Promise<unknown> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error("the namespaces have ended")
    return JSON.parse(value)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL")
    await this.#child.exited
    rmSync(this.#home, { recursive: true, force: true })
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = ""
  for await (const bytes of stream) {
    const parts = (rest + Buffer.from(bytes).toString()).split("\n")
    rest = parts.pop() ?? ""
    yield* parts
  }
}

let alone: Alone | undefined
afterEach(() => alone?.[Symbol.asyncDispose]())

describe.skipIf(!canRun)("a name server", () => {
  const kinds = Object.keys(policies) as Kind[]

  test("passes on only names that its sandboxes may reach, over UDP and TCP, and after the daemon's death", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    await alone.start(...kinds)
    for (const round of ["new", "found again"]) {
      for (const kind of kinds) {
        for (const over of ["udp", "tcp"] as const) {
          for (const type of [1, 16, 28, 43]) await alone.ask(kind, names, { over, kind: type })
          expect([round, kind, over, await alone.passedOn()]).toEqual([
            round,
            kind,
            over,
            permitted[kind].toSorted(),
          ])
        }
      }
      await alone.do({ do: "end" })
      await alone.start(...kinds)
    }
  })

  test("asks the host's name servers as the host's file changes, and nobody while it names none", async () => {
    alone = await Alone.open(
      `# by hand\nsearch corp.example.com\n  nameserver\t${first} # one\nnameserver 10.99.0.1\n`,
    )
    await alone.start(...kinds)
    const { [0]: name = "" } = permitted["allow-host"]
    const expectFrom = async (from: string | null) => {
      for (const kind of ["allow-host", "public"] as const)
        await alone?.do({ do: "await", ...policies[kind], name, from })
      await alone?.ask("deny", names)
      expect(await alone?.passedOn()).not.toContain(names[4])
    }
    await expectFrom(first)
    await alone.host(`nameserver ${second}\n`)
    await expectFrom(second)
    await alone.run(`echo nameserver ${sixth} >/etc/resolv.conf`)
    await expectFrom(sixth)
    await alone.run("mkdir -p /run/elsewhere && ln -sf /run/elsewhere/resolv.conf /etc/resolv.conf")
    await expectFrom(null)
    await alone.host("nameserver fe80::53%nowhere\n")
    await expectFrom(null)
    await alone.run(`echo nameserver ${first} >/run/elsewhere/resolv.conf`)
    await alone.run("ln -sf /run/elsewhere/resolv.conf /etc/resolv.conf")
    await expectFrom(first)
    await alone.run("rm /etc/resolv.conf")
    await expectFrom(null)
    const trouble = "sandboxes cannot resolve internet names: /etc/resolv.conf"
    expect(alone.reports).toEqual([
      `${trouble} cannot be read (ENOENT)`,
      `${trouble} cannot be read (ENOENT)`,
    ])
  }, 30_000)

  test("of damaged host's files none opens a closed sandbox or keeps a daemon from starting", async () => {
    alone = await Alone.open("")
    for (const damage of [
      "rm -f /etc/resolv.conf",
      "mkdir /etc/resolv.conf",
      "mkfifo /etc/resolv.conf",
      "ln -s /etc/resolv.conf /etc/resolv.conf",
      "ln -s /dev/zero /etc/resolv.conf",
      "head -c 100000 /dev/urandom >/etc/resolv.conf",
      `printf 'nameserver /#/${first}\nserver=${first}\nresolv-file=/etc/hosts\n' >/etc/resolv.conf`,
      `printf 'nameserver ${first}\\0' >/etc/resolv.conf`,
    ]) {
      await alone.run(`rm -rf /etc/resolv.conf && ${damage}`)
      await alone.start(...kinds)
      for (const kind of kinds) {
        expect([
          damage,
          kind,
          (await alone.ask(kind, ["example.com", "x.tunnel.example.org"])) as string[],
        ]).not.toContain("203.0.113.9")
        expect([damage, kind, await alone.passedOn()]).toEqual([damage, kind, []])
      }
      await alone.do({ do: "end" })
    }
  })

  test("that an earlier build has left open is replaced when the daemon starts", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    await alone.start("deny")
    await alone.do({ do: "end" })
    await alone.run(`
      cd /run/bhatti_*/*_*
      kill "$(cat pid)"
      while grep -q . "/proc/$(cat pid)/cmdline"; do sleep 0.01; done
      sed -i 's,^no-resolv,resolv-file=/etc/resolv.conf,; /^servers-file/d' dnsmasq.conf
      dnsmasq --conf-file="$PWD/dnsmasq.conf"`)
    await alone.ask("deny", names)
    expect(await alone.passedOn()).toContain("secret.tunnel.example.org")
    await alone.start("deny")
    await alone.ask("deny", names)
    expect(await alone.passedOn()).toEqual([])
  })

  test("is known among other users' processes with its words, and is the only one that is ended", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    const decoy = resolve(import.meta.dir, "../../test/support/decoy.py")
    const asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --"
    // Before the name server, so that it comes first among all processes.
    const config = `$(echo /run/bhatti_*)/${profileOf(owner, policies.deny.policy).key}/dnsmasq.conf`
    await alone.start("public")
    await alone.run(`
      ${asNobody} /usr/bin/python3 ${decoy} /usr/sbin/dnsmasq "--conf-file=${config}" >/run/said 2>&1 &
      echo $! >/run/decoy
      until grep -q ready /run/said; do sleep 0.05; done`)
    const decoyWords = () => alone?.run('tr "\\\\0" " " <"/proc/$(cat /run/decoy)/cmdline"')
    expect(await decoyWords()).toMatch(/^\/usr\/sbin\/dnsmasq --conf-file=\/run\/bhatti_/)
    await alone.do({ do: "attach", ...policies.deny, slot: 2 })
    const pidOf = () => alone?.run(`cat /run/bhatti_*/${profileOf(owner, policies.deny.policy).key}/pid`)
    const pid = await pidOf()
    await alone.do({ do: "end" })
    await alone.start("public", "deny")
    expect(await pidOf()).toBe(pid)
    await alone.ask("deny", names)
    expect(await alone.passedOn()).toEqual([])
    await alone.do({ do: "end" })
    await alone.start("public")
    await alone.run(`! grep -q . /proc/${pid?.trim()}/cmdline`)
    expect(await decoyWords()).toContain("--conf-file=")
  })

  test("is replaced when its files have been removed", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    await alone.start("allow-host", "public")
    await alone.do({ do: "end" })
    await alone.run("rm -rf /run/bhatti_*")
    await alone.start("public", "allow-host")
    for (const kind of ["allow-host", "public"] as const) {
      await alone.ask(kind, names)
      expect([kind, await alone.passedOn()]).toEqual([kind, permitted[kind].toSorted()])
    }
    expect((await alone.run("pgrep -c dnsmasq -r S")).trim()).toBe("2")
  })

  test("follows what a sandbox may reach when that is edited", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    await alone.start()
    for (const kind of [...kinds, ...kinds.toReversed()]) {
      await alone.do({ do: "attach", ...policies[kind], slot: 1 })
      await alone.ask(kind, names)
      expect([kind, await alone.passedOn()]).toEqual([kind, permitted[kind].toSorted()])
    }
  })

  test("asks those that the operator has chosen instead", async () => {
    alone = await Alone.open(`nameserver ${first}\n`)
    await alone.do({ do: "start", attached: [{ ...policies.public, slot: 1 }], upstreams: [second] })
    await alone.do({ do: "await", ...policies.public, name: "example.com", from: second })
    await alone.host("")
    await alone.do({ do: "await", ...policies.public, name: "example.org", from: second })
    await alone.passedOn()
    expect(alone.reports).toEqual([])
  })
})
