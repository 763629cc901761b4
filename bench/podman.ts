/**
 * The counterpart: podman with the very files of a bhatti image, in a storage of its own. It is set up to be as fast as
 * it gets while it still isolates: native overlay, no network, no events, no log, and no control groups where it can do
 * without. Its defaults for security stay.
 */

import { mkdir, readdir, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { type TimedCommand, timeCommand } from "./command.ts"

/** From the one with the least to do to podman's defaults; the first one that runs is taken. */
const candidates: string[][] = [
  ["--network=none", "--log-driver=none", "--cgroups=disabled"],
  ["--network=none", "--log-driver=none"],
  ["--network=none"],
  [],
]

/** podman raises these by itself, which a host may refuse even root; lowering is always allowed and costs the same. */
const limitFlags = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]

const imageName = "bhatti-bench"

export type Image = { name: string; hash: string; file: string }

export class Podman implements AsyncDisposable {
  readonly description: string
  readonly #storageFlags: string[]
  readonly #runFlags: string[]

  private constructor(options: { description: string; storageFlags: string[]; runFlags: string[] }) {
    this.description = options.description
    this.#storageFlags = options.storageFlags
    this.#runFlags = options.runFlags
  }

  /** Imports the image's files once per image and finds flags that work here; else says why there is no comparison. */
  static async prepare(options: {
    cacheDir: string
    image: Image
    report: (line: string) => void
  }): Promise<Podman | { unusable: string }> {
    if (Bun.which("podman") === null) return { unusable: "podman is not installed" }
    if (process.getuid?.() !== 0) return { unusable: "the image's files can be unpacked by root only" }
    // podman takes no directory whose name has more than 50 characters.
    const directory = join(options.cacheDir, "bench", `podman-${options.image.hash.slice(0, 8)}`)
    await removeOthers(directory)
    await importImage(directory, options)

    const flags = storageFlags(directory)
    let reason = ""
    for (const runFlags of candidates) {
      const podman = new Podman({
        description: `${await describe(flags)}, ${runFlags.join(" ") || "default flags"}`,
        storageFlags: flags,
        runFlags,
      })
      try {
        // Remains of an interrupted run.
        await podman.#podman("rm", "--all", "--force", "--time=0")
        await podman.run(["--rm"], ["true"])
        return podman
      } catch (error) {
        reason = String(error)
      }
    }
    return { unusable: `podman runs nothing here: ${reason}` }
  }

  /** `podman run`, with `flags` before the image's name. */
  run(flags: string[], command: string[]): Promise<TimedCommand> {
    return this.#podman("run", ...limitFlags, ...this.#runFlags, ...flags, imageName, ...command)
  }

  exec(container: string, command: string[]): Promise<TimedCommand> {
    return this.#podman("exec", container, ...command)
  }

  copy(from: string, to: string): Promise<TimedCommand> {
    return this.#podman("cp", from, to)
  }

  start(container: string): Promise<TimedCommand> {
    return this.#podman("start", container)
  }

  stop(container: string): Promise<TimedCommand> {
    return this.#podman("stop", "--time=0", container)
  }

  /** At once, as a sandbox is destroyed: without the ten seconds that the container's program has to end by itself. */
  remove(container: string): Promise<TimedCommand> {
    return this.#podman("rm", "--force", "--time=0", container)
  }

  /** Pids of a running container: its first process, and the one that watches it. */
  async pidsOf(container: string): Promise<number[]> {
    const { stdout } = await this.#podman(
      "inspect",
      "--format={{.State.Pid}} {{.State.ConmonPid}}",
      container,
    )
    return stdout.trim().split(" ").map(Number)
  }

  async leftovers(): Promise<string[]> {
    const { stdout } = await this.#podman("ps", "--all", "--format={{.Names}}")
    return stdout
      .split("\n")
      .filter((name) => name !== "")
      .map((name) => `container ${name}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#podman("rm", "--all", "--force", "--time=0")
  }

  #podman(...args: string[]): Promise<TimedCommand> {
    return runPodman(this.#storageFlags, args)
  }
}

function runPodman(flags: string[], args: string[]): Promise<TimedCommand> {
  const env = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", HOME: "/root", LC_ALL: "C.UTF-8" }
  return timeCommand(["podman", ...flags, ...args], { env, cwd: "/" })
}

function storageFlags(directory: string): string[] {
  return [
    `--root=${join(directory, "storage")}`,
    `--runroot=${join(directory, "run")}`,
    `--tmpdir=${join(directory, "tmp")}`,
    "--storage-driver=overlay",
    "--events-backend=none",
  ]
}

async function describe(flags: string[]): Promise<string> {
  const format =
    "--format=podman {{.Version.Version}}, {{.Host.OCIRuntime.Name}}, {{.Store.GraphDriverName}} storage"
  return (await runPodman(flags, ["info", format])).stdout.trim()
}

/** The file `imported` comes last: without it the next run begins again. */
async function importImage(
  directory: string,
  { image, report }: { image: Image; report: (line: string) => void },
): Promise<void> {
  if (await exists(join(directory, "imported"))) return
  report(`importing image ${image.name} into podman, once`)
  const env = { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` }
  const tree = join(directory, "tree")
  const archive = join(directory, "image.tar")
  await rm(directory, { recursive: true, force: true })
  await mkdir(tree, { recursive: true })
  // Reads the file system without mounting it.
  await timeCommand(["debugfs", "-R", `rdump / ${tree}`, image.file], { env, cwd: "/" })
  await timeCommand(["tar", "-C", tree, "-cf", archive, "."], { env, cwd: "/" })
  await runPodman(storageFlags(directory), ["import", "--quiet", archive, imageName])
  await rm(tree, { recursive: true, force: true })
  await rm(archive)
  await Bun.write(join(directory, "imported"), "")
}

/** Images of earlier runs that nobody will compare with again. */
async function removeOthers(directory: string): Promise<void> {
  const parent = join(directory, "..")
  if (!(await exists(parent))) return
  for (const name of await readdir(parent)) {
    const path = join(parent, name)
    if (name.startsWith("podman-") && path !== directory) await rm(path, { recursive: true, force: true })
  }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined
}

/**
 * Older runtimes refuse a host that mixes both generations of control groups, which matters to nobody but them.
 * In a mount namespace without the newer hierarchy they run.
 */
export function isHybridControlGroups(): Promise<boolean> {
  return exists("/sys/fs/cgroup/unified/cgroup.procs")
}

/** Runs this very program again in such a namespace; everything it starts is in there too. */
export async function rerunWithoutUnifiedControlGroups(marker: string): Promise<number> {
  const child = Bun.spawn(
    [
      ...["unshare", "--mount", "--propagation=private", "sh", "-c"],
      'umount /sys/fs/cgroup/unified && exec "$@"',
      "sh",
      ...[process.execPath, ...process.argv.slice(1)],
    ],
    { env: { ...process.env, [marker]: "1" }, stdio: ["inherit", "inherit", "inherit"] },
  )
  return child.exited
}
