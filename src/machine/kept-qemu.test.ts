/** Builds of QEMU on disk, with small programs in QEMU's place. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { sealJson } from "../lib/sealed-json.ts"
import type { MachineShape } from "./command-line.ts"
import { type QemuBuild, stateFingerprint } from "./fingerprint.ts"
import { type KeptQemu, KeptQemus, listKept } from "./kept-qemu.ts"
import { removeUnused, usesOf } from "./qemu-needs.ts"

const shape: MachineShape = { cpus: 1, memoryMib: 512, accelerator: "tcg", network: "tap" }
/** No process has this user id. */
const traits = { qemu: "qemu-system-x86_64", launcher: "launcher", uidBase: 1_999_000_000 }

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync("/tmp/bhatti-kept-")
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

/** Installs a program in QEMU's place, as an update does. */
function update(version: string): QemuBuild {
  const binary = join(dataDir, "installed")
  rmSync(binary, { force: true })
  copyFileSync("/usr/bin/true", binary)
  appendFileSync(binary, version)
  return find(version)
}

function find(version: string): QemuBuild {
  const binary = join(dataDir, "installed")
  const { size, mtimeMs } = statSync(binary)
  return {
    binary,
    version,
    name: `${version} (Debian 1:${version}-1)`,
    identity: `version ${version} ${size} ${mtimeMs}`,
  }
}

const open = (qemu: QemuBuild, options: { forbidden?: string[]; isOutside?: boolean } = {}) =>
  KeptQemus.open({ dataDir, qemu, forbidden: [], isOutside: false, ...options })
const loads = (saved: QemuBuild) => (qemu: KeptQemu) => qemu.identity === saved.identity
const names = () => readdirSync(join(dataDir, "qemu")).toSorted()
const pathOf = (id: string) => join(dataDir, "qemu", id)

function save(at: string, qemu: QemuBuild): void {
  mkdirSync(join(dataDir, at, "snapshot"), { recursive: true })
  const manifest = {
    stateFingerprint: stateFingerprint(qemu, shape, 2),
    memoryBase: "template",
    state: { bytes: 0, sha256: "" },
    memory: { bytes: 0, checksum: "" },
  }
  writeFileSync(join(dataDir, at, "snapshot", "manifest.json"), sealJson(manifest))
}

test("a build is copied once, and each start finds it again", async () => {
  const qemu = update("7.1")
  const { present } = await open(qemu)
  expect(present).toMatchObject(qemu)
  const { ino } = statSync(present.root)
  expect((await open(qemu)).present).toEqual(present)
  expect(statSync(present.root).ino).toBe(ino)
  expect(statSync(join(present.root, qemu.binary)).mode & 0o777).toBe(0o755)
})

test("the same content is the same build, also when it was installed again", async () => {
  const { present } = await open(update("7.1"))
  utimesSync(join(dataDir, "installed"), 1, 1)
  const again = await open(find("7.1"))
  expect([again.present.id, again.present.identity]).toEqual([present.id, present.identity])
  expect(names()).toEqual([present.id])
})

test("after an update the build before it loads what it saved, and only that", async () => {
  const before = (await open(update("7.1"))).present
  const qemus = await open(update("7.2"))
  expect(qemus.present.id).not.toBe(before.id)
  expect(await qemus.choose(loads(before))).toMatchObject({ qemu: { id: before.id, root: before.root } })
  expect(await qemus.choose(loads(qemus.present))).toMatchObject({ qemu: { id: qemus.present.id } })
  expect(await qemus.choose(() => false)).toMatchObject({ reason: expect.stringContaining("another QEMU") })
  expect(await qemus.choose(() => false, before)).toMatchObject({
    reason: expect.stringContaining("another QEMU"),
  })
  expect(await qemus.choose(() => false, { id: "lost", name: "7.0" })).toEqual({
    reason: "its memory needs QEMU 7.0, which is not kept on this host",
  })
})

test("a kept build that is forbidden, changed, incomplete or out of reach is not run", async () => {
  const before = (await open(update("7.1"))).present
  const after = update("7.2")
  const reason = async (options: Parameters<typeof open>[1]) => {
    const chosen = await (await open(after, options)).choose(loads(before))
    return "reason" in chosen ? chosen.reason : "it runs"
  }
  const needs = "its memory needs QEMU 7.1 (Debian 1:7.1-1)"
  expect(await reason({})).toBe("it runs")
  for (const entry of ["7.1", "1:7.1-1", before.id])
    expect(await reason({ forbidden: [entry] })).toBe(`${needs}, which the operator forbids`)
  expect(await reason({ isOutside: true })).toStartWith(`${needs}, and with confinement: reduced`)
  appendFileSync(join(before.root, "etc/ld.so.cache"), "x")
  expect(await reason({})).toBe("it runs")
  appendFileSync(join(before.root, before.binary), "x")
  expect(await reason({})).toBe(`${needs}, and its kept copy is damaged: a file of it was changed`)
  rmSync(join(before.root, before.binary))
  expect(await reason({})).toBe(`${needs}, and its kept copy is damaged: a file of it is missing`)
  expect(open(after, { forbidden: ["7.2"] })).rejects.toMatchObject({ code: "unavailable", retryable: false })
})

test("without a jail no machine starts once the host's program was replaced", async () => {
  const qemu = update("7.1")
  const [outside, inside] = [await open(qemu, { isOutside: true }), await open(qemu)]
  outside.checkPresent()
  update("7.2")
  expect(() => outside.checkPresent()).toThrow("was replaced while the daemon ran")
  inside.checkPresent()
})

test("what a crash has left is removed, and a build that lost files is made anew", async () => {
  const qemu = update("7.1")
  const { present } = await open(qemu)
  mkdirSync(join(pathOf("part-1"), "root"), { recursive: true })
  mkdirSync(pathOf("without-facts"))
  rmSync(join(present.root, present.binary))
  expect((await open(qemu)).present.id).toBe(present.id)
  expect(existsSync(join(present.root, present.binary))).toBe(true)
  expect(names()).toEqual([present.id, "without-facts"].toSorted())
  expect(await listKept(dataDir)).toHaveLength(1)
})

test("the present build is copied again if a byte of its copy has changed", async () => {
  const qemu = update("7.1")
  const { present } = await open(qemu)
  const copy = join(present.root, qemu.binary)
  const content = readFileSync(copy)
  const changed = Buffer.from(content)
  changed[changed.length - 1] = 0
  writeFileSync(copy, changed)
  expect((await open(qemu)).present.id).toBe(present.id)
  expect(readFileSync(copy).equals(content)).toBe(true)
})

test("a build is kept while any memory needs it, wherever that lies", async () => {
  const before = (await open(update("7.1"))).present
  const qemus = await open(update("7.2"))
  const templates = { machines: async () => [{ shape }] }
  const places = ["sandboxes/sb_1", "snapshots/sn_1", "snapshots/tmp-draft", "set-aside/x-sandbox-sb_2"]
  for (const at of places) save(at, before)
  save("sandboxes/sb_new", qemus.present)
  mkdirSync(join(dataDir, "sandboxes/sb_without"))
  const builds = await qemus.list()
  expect(await usesOf({ dataDir, builds, shapes: [shape], traits })).toEqual(
    new Map([
      [before.id, { running: [], stopped: ["sb_1"], copies: ["sn_1", "tmp-draft", "x-sandbox-sb_2"] }],
      [qemus.present.id, { running: [], stopped: ["sb_new"], copies: [] }],
    ]),
  )
  for (const at of places) {
    expect(await removeUnused({ dataDir, qemus, templates, traits })).toEqual([])
    rmSync(join(dataDir, at), { recursive: true })
  }
  // A template that cannot be read may be one of a machine's that needs it.
  expect(
    await removeUnused({ dataDir, qemus, templates: { machines: async () => undefined }, traits }),
  ).toEqual([])
  expect(await removeUnused({ dataDir, qemus, templates, traits })).toEqual([before.name])
  expect(names()).toEqual([qemus.present.id])
  expect(await removeUnused({ dataDir, qemus, templates, traits })).toEqual([])
})

test("a build that differs from the present one in a library only is not needed", async () => {
  const before = (await open(update("7.1"))).present
  const present = { ...before, id: "with-a-new-library" }
  save("sandboxes/sb_1", before)
  const uses = await usesOf({ dataDir, builds: [present, before], shapes: [shape], traits })
  expect([...uses.keys()]).toEqual([present.id])
})

test("a running machine is named by the disk that it holds, also a forked one, and a zygote as such", async () => {
  const build = { ...update("7.1"), id: "present" }
  const program = join(dataDir, "qemu-of-test")
  copyFileSync("/usr/bin/bash", program)
  await using ended = new AsyncDisposableStack()
  const start = (folder: string) => {
    mkdirSync(join(dataDir, folder), { recursive: true })
    const disk = openSync(join(dataDir, folder, "disk.qcow2"), "w")
    // A forked machine has the command line of its zygote.
    const child = Bun.spawn([program, "-c", "read line", "-name", "bhatti-zygote-00ff"], {
      env: { BHATTI_STATE: stateFingerprint(build, shape, 2) },
      stdio: ["pipe", "ignore", "ignore", disk],
    })
    closeSync(disk)
    ended.defer(async () => {
      child.kill("SIGKILL")
      await child.exited
    })
  }
  start("sandboxes/sb_1")
  start("zygotes/00ff-0a1b2c3d")
  const uses = await usesOf({
    ...{ dataDir, builds: [build], shapes: [shape] },
    traits: { qemu: "qemu-of-test", launcher: "launcher", uidBase: undefined },
  })
  expect(uses.get("present")?.running.toSorted()).toEqual(["sb_1", "zygote of 00ff"])
})
