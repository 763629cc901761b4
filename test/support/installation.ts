/**
 * A bhatti of the tests' own: the compiled binary, its own data directory, address and home, real machines. Kernel and
 * image come from the cache that `test.sh` names; nothing of an installed instance is read or written.
 */

import { chownSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { descriptorNamesOf, identityOf, listPids, unlessOutOfReach } from "../../src/lib/process-identity.ts"
import { findNameServers } from "../../src/network/name-server-process.ts"
import { siteOf } from "../../src/network/tap-network.ts"
import { untilForked } from "./forks.ts"
import { KeptInstallation } from "./kept-installation.ts"
import { noteStarts } from "./starts.ts"

const root = resolve(import.meta.dir, "../..")
export const binary = join(root, "dist/bhatti")
/** How much longer than usual everything may take, on a host that is slow throughout. */
export const patience = Number(process.env["BHATTI_TEST_PATIENCE"] ?? "1")
/** Settings for every installation whose test has no other value for them. */
const everywhere = (process.env["BHATTI_TEST_CONFIG"] ?? "").split("\n").filter((line) => line !== "")
export const cacheDir = process.env["BHATTI_TEST_CACHE"] ?? "/var/cache/bhatti"

export type CommandResult = { stdout: string; stderr: string; exitCode: number; ms: number }

export type Installation = AsyncDisposable & {
  dataDir: string
  url: string
  key: string
  daemonPid(): number
  /** Null while it runs. */
  daemonExitCode(): number | null
  /** Runs the command line as a user would. */
  bhatti(args: string[], options?: CommandOptions): Promise<CommandResult>
  start(args: string[], options?: CommandOptions): Bun.Subprocess<"pipe", "pipe", "pipe">
  stopDaemon(signal: "SIGTERM" | "SIGKILL"): Promise<void>
  /** `binary` is another build than the one under test. */
  startDaemon(options?: { binary?: string }): Promise<void>
  daemonLog(): string
  addUser(name: string, args?: string[]): Promise<string>
  /** Pids of this installation's machines, without zygotes. */
  machines(): number[]
}

export type CommandOptions = {
  stdin?: string | Uint8Array
  env?: Record<string, string>
  key?: string
  deadlineMs?: number
  /** The command line of another build. */
  binary?: string
}

const commandDeadlineMs = 120_000
/** Zygotes and the fetching of images have the last ones. The highest `uid_base` may be 2,000,000,000. */
const uidsOfInstallation = 65_536

/** Short, since unix sockets of machines live below it. */
export const homePrefix = "/tmp/bhatti-test-"
/** Says in an installation's home which process it belongs to. */
export const ownerFile = "owner.json"

/** A command that ends before it has read everything is no error of the test. */
async function feed(sink: Bun.FileSink, bytes: string | Uint8Array = ""): Promise<void> {
  try {
    await sink.write(bytes)
    await sink.end()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error
  }
}

export async function install(
  options: {
    config?: string
    pool?: number
    binary?: string
    /** A program that starts the daemon by becoming it. */
    launcher?: string[]
    serve?: string[]
    /** Puts the data directory on a file system of its own. */
    diskMib?: number
    /** Returns when new sandboxes of the usual size are forked, unless they cannot be on this host or in this run. */
    isForked?: boolean
    /** Id of an ordinary user to run everything as. */
    uid?: number
    /** Has addresses for 2000 sandboxes instead of 200. */
    isWide?: boolean
  } = {},
): Promise<Installation> {
  const asUser =
    options.uid === undefined
      ? []
      : ["setpriv", `--reuid=${options.uid}`, `--regid=${options.uid}`, "--clear-groups", "--"]
  const program = [...asUser, options.binary ?? binary]
  const serve = options.serve ?? [...program, "serve"]
  const home = mkdtempSync(homePrefix)
  writeFileSync(join(home, ownerFile), JSON.stringify(identityOf(process.pid)))
  const dataDir = join(home, "data")
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const environment = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", HOME: home, LC_ALL: "C.UTF-8" }
  const logPath = join(home, "daemon.log")
  let daemon: Bun.Subprocess | undefined
  let key = ""

  const run = async (args: string[], command: CommandOptions = {}): Promise<CommandResult> => {
    const startedAt = performance.now()
    const child = installation.start(args, command)
    void feed(child.stdin, command.stdin)
    const timer = setTimeout(
      () => child.kill("SIGKILL"),
      (command.deadlineMs ?? commandDeadlineMs) * patience,
    )
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    clearTimeout(timer)
    return { stdout, stderr, exitCode, ms: performance.now() - startedAt }
  }

  const installation: Installation = {
    dataDir,
    url,
    get key() {
      return key
    },
    daemonPid: () => daemon?.pid ?? 0,
    daemonExitCode: () => (daemon?.signalCode ? -1 : (daemon?.exitCode ?? null)),
    bhatti: run,
    start: (args, command = {}) =>
      Bun.spawn([...(command.binary === undefined ? program : [command.binary]), ...args], {
        env: { ...environment, BHATTI_URL: url, BHATTI_TOKEN: command.key ?? key, ...command.env },
        cwd: home,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "pipe",
      }),
    async stopDaemon(signal) {
      daemon?.kill(signal)
      await daemon?.exited
    },
    async startDaemon(start = {}) {
      const chosen = start.binary === undefined ? serve : [start.binary, "serve"]
      const words = [...chosen, "--data-dir", dataDir, "--listen", `127.0.0.1:${port}`]
      // Otherwise what a former one said last would still stand behind what this one says.
      rmSync(`${logPath}.stderr`, { force: true })
      daemon = Bun.spawn([...(options.launcher ?? []), ...words], {
        env: environment,
        stdin: "ignore",
        stdout: Bun.file(logPath),
        stderr: Bun.file(`${logPath}.stderr`),
      })
      const child = daemon
      await until("the daemon answers", async () => {
        if (child.exitCode !== null)
          throw new Error(`the daemon ended: ${readFileSync(`${logPath}.stderr`, "utf8")}`)
        return (await fetch(`${url}/health`).catch(() => undefined))?.ok === true
      })
    },
    daemonLog: () => readFileSync(logPath, "utf8") + readFileSync(`${logPath}.stderr`, "utf8"),
    async addUser(name, args = []) {
      const { stdout, stderr, exitCode } = await run([
        "user",
        "create",
        "--name",
        name,
        "--data-dir",
        dataDir,
        "--json",
        ...args,
      ])
      if (exitCode !== 0) throw new Error(stderr)
      return (JSON.parse(stdout) as { key: string }).key
    },
    machines: () => machinesOf(dataDir),
    async [Symbol.asyncDispose]() {
      if (daemon) {
        const listed = await run(["list", "--json"])
        const names =
          listed.exitCode === 0 ? (JSON.parse(listed.stdout) as { id: string }[]).map(({ id }) => id) : []
        if (names.length > 0) await run(["destroy", ...names, "--yes"])
        await installation.stopDaemon("SIGTERM")
      }
      noteStarts(dataDir)
      await removeRemains(home)
    },
  }

  try {
    // Machines of two installations must not share user ids.
    const uidBase = uidsOfInstallation * (16 + Math.floor(Math.random() * 30_500))
    mkdirSync(dataDir, { mode: 0o700 })
    if (options.diskMib !== undefined) mount(dataDir, options.diskMib)
    if (options.uid !== undefined)
      for (const path of [home, dataDir]) chownSync(path, options.uid, options.uid)
    // Nor addresses; a /24 from a part of 10.0.0.0/8 that is neither the default's nor likely to be the host's.
    const subnet = options.isWide
      ? `10.${190 + Math.floor(Math.random() * 18)}.${16 * Math.floor(Math.random() * 16)}.0/20`
      : `10.${210 + Math.floor(Math.random() * 40)}.${Math.floor(Math.random() * 256)}.0/24`
    const own = (options.config ?? "").split("\n")
    const keyOf = (line: string) => line.split(":")[0]
    const others = everywhere.filter((line) => !own.some((one) => keyOf(one) === keyOf(line)))
    const isForked = options.isForked ?? others.includes("forks: auto")
    const config = [
      `subnet: ${subnet}`,
      `uid_base: ${uidBase}`,
      `pool: ${options.pool ?? 0}`,
      ...others,
      ...own,
    ].join("\n")
    writeFileSync(join(dataDir, "config.yaml"), config, { mode: 0o600 })
    if (options.uid !== undefined) chownSync(join(dataDir, "config.yaml"), options.uid, options.uid)
    const kept = new KeptInstallation({
      cacheDir,
      build: join(root, "dist/build.json"),
      kind: config.match(/^(accel|network):.*$/gm)?.join() ?? "",
    })
    // Another user could not read it, and another build has its own.
    const isShared = options.uid === undefined && options.binary === undefined
    if (!isShared || !kept.give(dataDir)) {
      const made = await run(["init", "--data-dir", dataDir, "--cache-dir", cacheDir], {
        deadlineMs: 600_000,
      })
      if (made.exitCode !== 0) throw new Error(`init failed: ${made.stdout}${made.stderr}`)
      if (isShared) kept.keep(dataDir)
    }
    await installation.startDaemon()
    key = await installation.addUser("tester", ["--max-sandboxes", options.isWide ? "2000" : "200"])
    if (isForked) await untilForked(installation)
    return installation
  } catch (error) {
    await installation[Symbol.asyncDispose]()
    throw error
  }
}

/** In memory, so that a test can fill it. */
function mount(directory: string, mib: number): void {
  const { exitCode, stderr } = Bun.spawnSync([
    "mount",
    "-t",
    "tmpfs",
    "-o",
    `size=${mib}m,mode=0700`,
    "bhatti-test",
    directory,
  ])
  if (exitCode !== 0) throw new Error(`mount: ${stderr}`)
}

/**
 * Machines hold their disk open, and the disk's path names the data directory. Zygotes and their trials, which hold
 * files of their own directory, come and go by themselves and do not count.
 */
function machinesOf(dataDir: string): number[] {
  const programOf = (pid: number) => unlessOutOfReach("", () => readlinkSync(`/proc/${pid}/exe`))
  return listPids().filter((pid) => {
    if (!/\/qemu-system[^/]*$/.test(programOf(pid))) return false
    const held = descriptorNamesOf(pid).filter((name) => name.startsWith(dataDir))
    return held.length > 0 && !held.some((name) => name.startsWith(`${dataDir}/zygotes/`))
  })
}

/** Removes an ended or interrupted test's installation: processes, network, file system and files. */
export async function removeRemains(home: string): Promise<void> {
  const dataDir = join(home, "data")
  const holders = () =>
    listPids().filter(
      (pid) => pid !== process.pid && descriptorNamesOf(pid).some((name) => name.startsWith(`${home}/`)),
    )
  for (const pid of holders()) unlessOutOfReach(true, () => process.kill(pid, "SIGKILL"))
  await until("nothing holds its files", () => holders().length === 0)
  removeNetwork(dataDir)
  Bun.spawnSync(["umount", "--lazy", dataDir], { stderr: "ignore" })
  rmSync(home, { recursive: true, force: true })
}

/** Removes the network that a killed daemon has left. */
function removeNetwork(dataDir: string): void {
  const { table, anchor } = siteOf(dataDir)
  for (const command of [
    ["nft", "delete", "table", "inet", table],
    ["nft", "delete", "table", "arp", table],
    ["ip", "link", "delete", "dev", anchor],
  ])
    Bun.spawnSync(command, { stderr: "ignore" })
  for (const server of findNameServers(`/run/${table}`)) process.kill(server.process.pid, "SIGTERM")
  rmSync(`/run/${table}`, { recursive: true, force: true })
}

async function freePort(): Promise<number> {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const { port } = server
  server.stop(true)
  return port
}

/** Waits for a condition, with a deadline and a name for it. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  options: { deadlineMs?: number } = {},
): Promise<void> {
  const deadline = Date.now() + (options.deadlineMs ?? 30_000) * patience
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await Bun.sleep(20)
  }
}
