/**
 * A root file system of Debian 13 in which commands run with the checkout and the cache of this host. They have mounts
 * and a network of their own: an nft of Debian 12 crashes when it reads rules that a newer one has made.
 */

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { runProgram } from "../../src/lib/program.ts"
import { cacheDir } from "./installation.ts"

const checkout = resolve(import.meta.dir, "../..")
const packages = [
  "qemu-system-x86",
  "qemu-utils",
  "nftables",
  "iproute2",
  "dnsmasq-base",
  "mmdebstrap",
  "e2fsprogs",
  "procps",
  "perl",
  "python3",
  "kmod",
  "lz4",
  "xz-utils",
  "zstd",
]
const buildDeadlineMs = 900_000
const copyDeadlineMs = 60_000
/** Guests are this host's: they are made of what apt names, and kept in the cache under that. */
const ofHost = ["/proc", "/dev", "/tmp", "/etc/apt", "/var/lib/apt", checkout]
const kept = ["kernel-packages", "kernels", "images", "kits"]

export type Debian13 = AsyncDisposable & {
  /** Returns what the command printed, and its exit code. */
  run(command: string[], env?: Record<string, string>): Promise<{ text: string; exitCode: number }>
}

export async function debian13(): Promise<Debian13> {
  await using undo = new AsyncDisposableStack()
  const home = mkdtempSync("/tmp/bhatti-debian-13-")
  undo.defer(() => rmSync(home, { recursive: true, force: true }))
  const root = join(home, "root")
  await runProgram(
    [
      "mmdebstrap",
      "--variant=minbase",
      `--include=${packages.join(",")}`,
      "--format=directory",
      "trixie",
      root,
    ],
    { deadlineMs: buildDeadlineMs },
  )
  // A cache of its own: what is made here does not fit this host's daemons.
  const cache = join(home, "cache")
  mkdirSync(cache)
  const present = kept.map((name) => join(cacheDir, name)).filter((path) => existsSync(path))
  // Nobody changes a file of the cache, so links do.
  await runProgram(["cp", "--archive", "--link", ...present, cache], { deadlineMs: copyDeadlineMs })
  const binds = [...ofHost.map((path) => [path, path]), [cache, cacheDir]]
  const script = [
    "set -e",
    `mount --bind ${root} ${root}`,
    ...binds.map(([from, to]) => `mkdir -p ${root}${to}; mount --rbind ${from} ${root}${to}`),
    // The host's own shows the devices of its network.
    `mount -t sysfs sysfs ${root}/sys; mount --rbind /sys/fs/cgroup ${root}/sys/fs/cgroup`,
    `cd ${root}; mkdir -p former; pivot_root . former; umount -l /former`,
    "ip link set lo up",
    `cd ${checkout}; exec "$@"`,
  ].join("\n")
  const made = undo.move()
  return {
    async run(command, env = {}) {
      const child = Bun.spawn(
        ["unshare", "--mount", "--net", "--propagation", "private", "bash", "-c", script, "bash", ...command],
        {
          env: {
            PATH: `${checkout}/node_modules/.bin:/usr/sbin:/usr/bin:/sbin:/bin`,
            LC_ALL: "C.UTF-8",
            ...env,
          },
          stdin: "ignore",
          stdout: "pipe",
          stderr: "pipe",
        },
      )
      const texts = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
      return { text: texts.join(""), exitCode: await child.exited }
    },
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  }
}
