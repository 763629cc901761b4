/** Templates on disk and in memory: which of them keep their memory open. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createMemoryFile } from "../lib/posix.ts"
import { sealJson } from "../lib/sealed-json.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import { writeMemory } from "./memory.ts"
import { sha256, TemplateFiles } from "./template-files.ts"

let dataDir = ""
let files: TemplateFiles
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "bhatti-templates-"))
  files = new TemplateFiles(dataDir, (error) => {
    throw error
  })
})
afterEach(() => rmSync(dataDir, { recursive: true }))

const state = "QEVM and more"

async function make(fingerprint: string, owner: string | null): Promise<void> {
  const directory = join(dataDir, "templates", `${fingerprint}-1`)
  mkdirSync(directory, { recursive: true })
  for (const name of ["disk.qcow2", "blank.qcow2"]) writeFileSync(join(directory, name), name)
  writeFileSync(join(directory, "state"), state)
  writeFileSync(join(dataDir, "image.raw"), "")
  const bytes = 1024 * 1024
  const fd = createMemoryFile({ name: "test", bytes })
  const checksum = await writeMemory({ fd, bytes, path: join(directory, "memory") })
  closeSync(fd)
  const manifest = {
    fingerprint,
    shape: { cpus: 1, memoryMib: 1, accelerator: "tcg", network: "tap" },
    image: { name: "x", hash: "x", file: "image.raw", diskMib: 1 },
    owner,
    files: {
      memory: { bytes, checksum },
      state: { bytes: state.length, sha256: sha256(Buffer.from(state)) },
      disk: { checksum: await fileChecksum(join(directory, "disk.qcow2")) },
      blank: { checksum: await fileChecksum(join(directory, "blank.qcow2")) },
    },
  }
  writeFileSync(join(directory, "manifest.json"), sealJson(manifest))
}

/** Memory files that this process holds open. */
function memories(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:")
    } catch {
      return false
    }
  }).length
}

test("unused memory of one account's templates is freed, loaded again when it is wanted, and nobody else's is", async () => {
  await make("aa", "usr_1")
  await make("bb", null)
  const before = memories()
  const [own] = [await files.find("aa"), await files.find("bb")]
  expect(memories()).toBe(before + 2)
  await files.releaseOwned({ unusedForMs: 60_000 })
  expect(memories()).toBe(before + 2)
  await files.releaseOwned({ unusedForMs: 0 })
  expect(memories()).toBe(before + 1)
  if (!own) throw new Error("the template was not found")
  closeSync(await files.memory(own))
  expect((await files.measure()).map(({ owner }) => owner).sort()).toEqual([null, "usr_1"])
})

test("a template whose device state became long is damaged, and its state is not read", async () => {
  await make("aa", "usr_1")
  truncateSync(join(dataDir, "templates/aa-1/state"), 2 ** 40)
  await expect(files.find("aa")).rejects.toThrow("its state is missing or was changed")
})
