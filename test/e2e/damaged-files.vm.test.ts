/**
 * Each file of the data directory missing, empty, cut, with one byte flipped, or an older copy. Whatever it is, the
 * daemon starts and says what is damaged, or refuses and says what to do; no directory is lost; and nobody is given
 * wrong bytes without being told. By default a few of each kind; `DAMAGE=all` tries all, `DAMAGE=template` those whose
 * name has that in it.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { dirname, join } from "node:path"
import { installKernel } from "../../src/image/install.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import { cacheDir, type Installation, install, until } from "../support/installation.ts"

const agent = join(import.meta.dir, "../../dist/lohar")

const damages = ["missing", "empty", "cut", "flipped", "older"] as const
type Damage = (typeof damages)[number]

/** Files by what they are. What is found at the place of a star is the same for all cases. */
const files = [
  "config.yaml",
  "bhatti.db",
  "bhatti.db-wal",
  "bhatti.db-shm",
  "age.key",
  "installation.json",
  "kvm-probe.json",
  "lock",
  "api.sock",
  "operator.sock",
  "kernels/current.json",
  "kernels/*/vmlinux",
  "kernels/*/initramfs",
  "kernels/*/manifest.json",
  "kernels/*.checked",
  "kits/*.raw",
  "kits/*.json",
  "kits/*.checked",
  "images/*/current.json",
  "images/*/*.raw",
  "images/*/*.json",
  "images/*/*.checked",
  "templates/*/memory",
  "templates/*/state",
  "templates/*/disk.qcow2",
  "templates/*/blank.qcow2",
  "templates/*/manifest.json",
  "sandboxes/ONE/disk.qcow2",
  "sandboxes/ONE/record.json",
  "sandboxes/ONE/snapshot/memory",
  "sandboxes/ONE/snapshot/state",
  "sandboxes/ONE/snapshot/manifest.json",
  "snapshots/*/disk.qcow2",
  "snapshots/*/record.json",
  "snapshots/*/manifest.json",
  "snapshots/*/snapshot/memory",
  "snapshots/*/snapshot/state",
  "snapshots/*/snapshot/manifest.json",
]

/** The cases that run by default. */
const usual = new Set([
  "config.yaml empty",
  "bhatti.db missing",
  "bhatti.db older",
  "bhatti.db-wal cut",
  "age.key flipped",
  "installation.json empty",
  "kernels/current.json empty",
  "kernels/*/vmlinux flipped",
  "kernels/*/initramfs flipped",
  "kits/*.raw flipped",
  "images/*/current.json missing",
  "images/*/*.raw flipped",
  "templates/*/memory flipped",
  "templates/*/manifest.json cut",
  "sandboxes/ONE/disk.qcow2 missing",
  "sandboxes/ONE/disk.qcow2 older",
  "sandboxes/ONE/snapshot/memory flipped",
  "sandboxes/ONE/snapshot/manifest.json empty",
  "snapshots/*/disk.qcow2 flipped",
  "snapshots/*/manifest.json cut",
])

/**
 * Damage that nobody can see: settings that are still well formed and without a checksum, which the operator may write
 * as they like; the contents of sandboxes' disks, whose guests write them all the time; and that there was a kit, which
 * a host may be without.
 */
const unseen = new Set([
  "config.yaml missing",
  "config.yaml cut",
  "config.yaml flipped",
  "kits/*.json missing",
  "templates/*/disk.qcow2 flipped",
  "sandboxes/ONE/disk.qcow2 flipped",
])

const asked = process.env["DAMAGE"]
const cases = files.flatMap((file) => damages.map((damage): [string, Damage] => [file, damage]))
const tried = cases.filter(([file, damage]) => {
  const name = `${file} ${damage}`
  if (unseen.has(name)) return false
  return asked === undefined ? usual.has(name) : asked === "all" || name.includes(asked)
})

let own: Installation
/** The data directory as it is before every case, and as it was a while before. */
let aside = ""
let one = ""
const now = () => join(aside, "now")
const before = () => join(aside, "before")

async function ok(...args: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await own.bhatti(args)
  if (exitCode !== 0) throw new Error(`${args.join(" ")}: ${stdout}${stderr}`)
  return stdout
}

const setMarks = (name: string, text: string) =>
  ok("exec", name, "--", "bash", "-c", `echo ${text} > mark; echo ${text} > /dev/shm/mark; sync`)

/** Copies files that change, and links the others. */
function copyDataDir(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { mode: 0o700 })
  for (const name of readdirSync(from)) {
    const how = ["images", "kernels", "kits", "templates", "snapshots"].includes(name)
      ? "--link"
      : "--sparse=always"
    if (/\.sock$/.test(name)) continue
    const { exitCode, stderr } = Bun.spawnSync(["cp", "--archive", how, join(from, name), to])
    if (exitCode !== 0) throw new Error(stderr.toString())
  }
}

beforeAll(async () => {
  own = await install()
  aside = mkdtempSync("/tmp/bhatti-aside-")
  await ok("secret", "set", "TOKEN", "value")
  for (const name of ["one", "other"]) await ok("create", "--name", name)
  await setMarks("one", "old")
  await setMarks("other", "right")
  await ok("stop", "one")
  await until("rows are kept", () => keptNames().length === 2)
  await own.stopDaemon("SIGTERM")
  copyDataDir(own.dataDir, before())
  await own.startDaemon()
  await setMarks("one", "right")
  await ok("snapshot", "create", "one", "--name", "kept")
  for (const name of ["one", "other"]) await ok("stop", name)
  one =
    (JSON.parse(await ok("list", "--json")) as { id: string; name: string }[]).find(
      ({ name }) => name === "one",
    )?.id ?? ""
  await until("memory is kept too", () =>
    readFileSync(join(own.dataDir, "sandboxes", one, "record.json"), "utf8").includes('"diskStamp":"'),
  )
  await until("the mark follows", async () => {
    const { Database } = await import("bun:sqlite")
    using database = new Database(join(own.dataDir, "bhatti.db"), { readonly: true })
    const counted = database.query<{ counter: number }, []>("select counter from installation").get()?.counter
    const mark = readFileSync(join(own.dataDir, "installation.json"), "utf8")
    return (JSON.parse(mark) as { counter: number }).counter === counted
  })
  // As a crash leaves it, with a log beside the database.
  await own.stopDaemon("SIGKILL")
  copyDataDir(own.dataDir, now())
})

afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(aside, { recursive: true, force: true })
})

function keptNames(): string[] {
  return [...new Bun.Glob("sandboxes/*/record.json").scanSync(own.dataDir)]
}

/** The first that fits; a lock or socket that is not there now is one that a crash leaves. */
function fileOf(pattern: string): string {
  const glob = new Bun.Glob(pattern.replace("ONE", one))
  const found = [...glob.scanSync({ cwd: own.dataDir, dot: true })].filter(
    (path) => !path.includes("current.json") || pattern.includes("current.json"),
  )
  return found.sort()[0] ?? pattern
}

/** On a copy that takes its place, since the file may be linked from elsewhere. False: an older one is the same. */
function damageFile(file: string, damage: Damage): boolean {
  const path = join(own.dataDir, file)
  const beside = `${path}.damaged`
  const source = damage === "older" ? join(before(), file) : path
  const isThere = existsSync(source) && statSync(source).isFile()
  mkdirSync(dirname(path), { recursive: true })
  if (damage === "older" && (!isThere || (file !== "bhatti.db" && runs("cmp", "--silent", source, path))))
    return false
  if (damage === "empty" || !isThere) writeFileSync(beside, "", { mode: 0o600 })
  else if (!runs("cp", "--archive", "--sparse=always", source, beside))
    throw new Error(`no copy of ${source}`)
  rmSync(path, { force: true })
  if (damage === "missing") rmSync(beside)
  else renameSync(beside, path)
  if (damage === "cut") truncateSync(path, Math.floor(statSync(path).size / 2))
  if (damage === "flipped") flip(path)
  return damage !== "cut" || isThere
}

function runs(...command: string[]): boolean {
  return Bun.spawnSync(command).exitCode === 0
}

/** Flips a bit, in the middle or in the next part after it that is no hole. */
function flip(path: string): void {
  const fd = openSync(path, "r+")
  try {
    const buffer = Buffer.alloc(1024 * 1024)
    for (let at = Math.floor(statSync(path).size / 2); ; at += buffer.length) {
      const read = readSync(fd, buffer, 0, buffer.length, at)
      const found = buffer.subarray(0, read).findIndex((byte) => byte !== 0)
      if (found >= 0) return void writeSync(fd, Buffer.from([(buffer[found] ?? 0) ^ 0x04]), 0, 1, at + found)
      if (read < buffer.length) return
    }
  } finally {
    closeSync(fd)
  }
}

const directories = () =>
  ["sandboxes", "snapshots"].flatMap((folder) =>
    readdirSync(join(own.dataDir, folder))
      .filter((name) => !name.startsWith("tmp-"))
      .map((name) => `${folder}/${name}`),
  )

/** An internal error tells nobody what is damaged. */
const isTelling = (text: string) => text.length > 20 && !text.includes("internal error")

/** Kernels and images, which an operator gets anew. */
const isArtifact = (file: string) => /^(kernels|kits|images)\//.test(file) && !file.endsWith(".checked")

/** A create is refused, the doctor names the file, both name the command that heals it, and it does. */
async function expectHealed(file: string, refusal?: string): Promise<void> {
  const command = `sudo bhatti init --data-dir ${own.dataDir}`
  const told = refusal ?? (await own.bhatti(["create", "--name", "new"])).stderr
  expect(told).toContain(command)
  const isListed = !file.endsWith("current.json")
  if (isListed) expect(told).toContain(file)
  const examined = await own.bhatti(["doctor", "--data-dir", own.dataDir])
  expect(examined.stdout).toContain(command)
  if (isListed) expect(examined.stdout).toContain(file)
  const healed = await own.bhatti(["init", "--data-dir", own.dataDir, "--cache-dir", cacheDir])
  expect([healed.exitCode, healed.stdout]).toEqual([0, ""])
  expect((await own.bhatti(["doctor", "--data-dir", own.dataDir])).stdout).not.toContain(command)
  if (refusal !== undefined) await own.startDaemon()
  await ok("create", "--name", "new")
  await ok("destroy", "new", "--yes")
}

type Outcome = { what: string; text: string; isTold: boolean }

/** Returns what its user gets: right bytes, or others and the reason with them, or an error with the reason. */
async function use(name: string): Promise<Outcome> {
  const { stdout, stderr, exitCode } = await own.bhatti([
    "exec",
    name,
    "--",
    "bash",
    "-c",
    "cat mark; cat /dev/shm/mark 2>/dev/null || true",
  ])
  if (exitCode !== 0) return { what: "error", text: stderr, isTold: isTelling(stderr) }
  if (stdout === "right\nright\n") return { what: "right", text: stdout, isTold: true }
  const view = JSON.parse(await ok("inspect", name, "--json")) as { status_reason: string | null }
  return {
    what: stdout === "right\n" ? "from disk" : "other",
    text: `${stdout}${view.status_reason}`,
    isTold: view.status_reason !== null,
  }
}

async function start(): Promise<string | undefined> {
  try {
    await own.startDaemon()
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

/** The data directory is as it was, and nothing runs. */
async function renew(): Promise<void> {
  await own.stopDaemon("SIGKILL")
  for (const pid of own.machines()) process.kill(pid, "SIGKILL")
  await until("its machines are gone", () => own.machines().length === 0)
  copyDataDir(now(), own.dataDir)
}

test.each(tried)("%s %s is told, and nothing else is lost", async (pattern, damage) => {
  await renew()
  const file = fileOf(pattern)
  const there = directories()
  // Some files are the same before and after, so there is no older copy.
  if (!damageFile(file, damage)) return
  // A database that is put back comes without the log of the other one.
  if (file === "bhatti.db" && damage === "older")
    for (const suffix of ["-wal", "-shm"]) rmSync(join(own.dataDir, `bhatti.db${suffix}`), { force: true })

  const refusal = await start()
  for (const directory of there)
    expect([directory, existsSync(join(own.dataDir, directory))]).toEqual([directory, true])
  if (refusal !== undefined) {
    if (asked !== undefined) console.log(file, damage, refusal)
    expect(refusal).toMatch(/bhatti (admin recover|init)|put it back|Put the right one back|remove/)
    if (isArtifact(file)) await expectHealed(file, refusal)
    return
  }
  const outcomes = [await use("one"), await use("other")]
  if (file.startsWith("snapshots/") || file.startsWith("templates/")) {
    const { exitCode, stderr } = await own.bhatti(["snapshot", "resume", "kept", "--name", "again"])
    outcomes.push(
      exitCode === 0 ? await use("again") : { what: "error", text: stderr, isTold: isTelling(stderr) },
    )
  }
  const untold = outcomes.filter(({ isTold }) => !isTold)
  if (asked !== undefined) console.log(file, damage, JSON.stringify(outcomes))
  expect(untold).toEqual([])
  // Only what lies in its own directory, or under it, can hurt the other one.
  if (/^(sandboxes|snapshots)\//.test(file)) expect(outcomes[1]?.what).toBe("right")
  if (isArtifact(file)) await expectHealed(file)
  expect(own.daemonExitCode()).toBeNull()
})

test("a kernel whose damage the cache shares is made again from the package", async () => {
  await renew()
  // Beside the cache, for links into it.
  const cache = mkdtempSync(`${cacheDir}-damaged-`)
  try {
    for (const shelf of ["kernels", "kernel-packages"]) {
      // Without what another build is making.
      const names = readdirSync(join(cacheDir, shelf)).filter((name) => !name.startsWith("."))
      const sources = names.map((name) => join(cacheDir, shelf, name))
      mkdirSync(join(cache, shelf))
      expect(runs("cp", "--archive", "--link", ...sources, join(cache, shelf))).toBe(true)
    }
    const installed = join(own.dataDir, fileOf("kernels/*/vmlinux"))
    const cached = join(cache, fileOf("kernels/*/vmlinux"))
    for (const path of [installed, cached]) rmSync(path)
    expect(
      runs("cp", "--archive", join(now(), dirname(fileOf("kernels/*/manifest.json")), "vmlinux"), cached),
    ).toBe(true)
    linkSync(cached, installed)
    flip(cached)
    await own.startDaemon()
    expect((await own.bhatti(["create", "--name", "new"])).stderr).toContain(installed)
    const told: string[] = []
    const report = ({ message }: { message: string }) => told.push(message)
    await installKernel(own.dataDir, await buildKernel({ cacheDir: cache, agentPath: agent, report }))
    expect(told).toContain(`${dirname(cached)} is damaged: make it again`)
    await ok("create", "--name", "new")
    await ok("destroy", "new", "--yes")
    expect(runs("cmp", "--silent", cached, installed)).toBe(true)
  } finally {
    rmSync(cache, { recursive: true })
  }
})
