/**
 * Recognising a machine among real processes that look like it: other users', with its words, its program, or its user
 * id.
 */

import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test"
import { closeSync, mkdirSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { findAllOfMachine, findMachine, isSlotInUse } from "./find-processes.ts"

const isRoot = process.getuid?.() === 0
if (!isRoot) console.log("skipped: needs root to start processes of other users")
const decoy = resolve(import.meta.dir, "../../test/support/decoy.py")

/** User ids that no other test and no installation uses. */
const uidBase = 1_900_000_000 + (process.pid % 1000) * 70_000
const machineUid = uidBase + 3
const stranger = 600_000 + (process.pid % 5000)
/** sleep stands for QEMU, tail for the launcher. */
const traits = { qemu: "sleep", launcher: "tail", uidBase }
const words = ["/usr/bin/qemu-system-x86_64", "-name", "sb_0123456789abcdef", "-nodefaults"]

const home = mkdtempSync("/tmp/bhatti-test-")
let directory: string
const started: Bun.Subprocess[] = []

beforeEach(() => {
  directory = join(home, crypto.randomUUID())
  mkdirSync(directory, { mode: 0o700 })
  writeFileSync(join(directory, "disk.qcow2"), "")
})
afterEach(async () => {
  for (const child of started) child.kill("SIGKILL")
  await Promise.all(started.splice(0).map((child) => child.exited))
})
afterAll(() => rmSync(home, { recursive: true, force: true }))

type Start = { uid?: number; command?: string[]; holds?: string; flags?: string }

/** Its pid, when it is the program that it is to be. */
async function start({ uid, command = ["sleep", "60"], holds, flags = "r+" }: Start): Promise<number> {
  const user =
    uid === undefined ? [] : ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"]
  const fd = holds === undefined ? undefined : openSync(holds, flags)
  const child = Bun.spawn([...user, ...command], { stdio: ["ignore", "pipe", "inherit", fd ?? "ignore"] })
  if (fd !== undefined) closeSync(fd)
  started.push(child)
  const name = command[0] ?? ""
  for (const endMs = performance.now() + 10_000; ; await Bun.sleep(5)) {
    const { pid } = child
    const program = await Bun.file(`/proc/${pid}/comm`).text()
    if (program.trim().startsWith(name.slice(0, 7))) return pid
    if (performance.now() > endMs) throw new Error(`${name} does not start`)
  }
}

const disk = () => join(directory, "disk.qcow2")
const pids = (found: { pid: number }[]) => found.map(({ pid }) => pid)

describe.skipIf(!isRoot)("a machine", () => {
  test("is who holds a file of its directory, and what it has made after that", async () => {
    const machine = await start({ uid: machineUid, holds: disk() })
    await Bun.sleep(20)
    const later = await start({ uid: machineUid, holds: disk() })
    expect(pids(findMachine(directory, traits))).toEqual([machine, later])
    expect(findMachine(join(home, "elsewhere"), traits)).toEqual([])
  })

  test("is not another user's process, whatever its words and its program are", async () => {
    const same = Bun.spawn(
      ["setpriv", `--reuid=${stranger}`, "--clear-groups", "--", "/usr/bin/python3", decoy, ...words],
      { stdout: "pipe" },
    )
    started.push(same)
    await same.stdout.getReader().read()
    expect(await Bun.file(`/proc/${same.pid}/cmdline`).text()).toStartWith(words.join("\0"))
    await start({ uid: stranger, command: ["sleep", "60", "60"] })
    expect(findAllOfMachine(directory, { ...traits, qemu: "python3.11" })).toEqual([])
    expect(findAllOfMachine(directory, traits)).toEqual([])
  })

  test("is not a process of a machine's user without its files, nor of root with them, nor another program", async () => {
    await start({ uid: machineUid })
    await start({ holds: disk() })
    await start({ uid: machineUid, command: ["perl", "-e", "sleep 60"], holds: disk() })
    expect(findAllOfMachine(directory, traits)).toEqual([])
  })

  test("is found when its disk has been replaced, by what else it holds", async () => {
    writeFileSync(join(directory, "device-state"), "")
    const machine = await start({ uid: machineUid, holds: join(directory, "device-state") })
    renameSync(disk(), join(directory, "disk.before"))
    writeFileSync(disk(), "another")
    expect(pids(findMachine(directory, traits))).toEqual([machine])
  })

  test("that is about to be is ended too, but is not yet one", async () => {
    const launcher = await start({ command: ["tail", "-f", "/dev/null"], holds: disk() })
    const half = await start({ uid: machineUid, command: ["tail", "-f", "/dev/null"], holds: disk() })
    expect(findMachine(directory, traits)).toEqual([])
    expect(pids(findAllOfMachine(directory, traits)).sort()).toEqual([launcher, half].sort())
  })
})

describe.skipIf(!isRoot)("a slot", () => {
  test("is in use while any process has its user id, whoever started it", async () => {
    const slots = () => [1, 2, 3, 4].filter((slot) => isSlotInUse(uidBase, slot))
    expect(slots()).toEqual([])
    await start({ uid: machineUid })
    await start({ uid: stranger })
    expect(slots()).toEqual([3])
    expect(isSlotInUse(undefined, 3)).toBe(false)
    for (const child of started) child.kill("SIGKILL")
    await Promise.all(started.map((child) => child.exited))
    expect(slots()).toEqual([])
  })
})
