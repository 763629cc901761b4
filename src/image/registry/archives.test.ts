/** Imports of archives, with the real unpacker, under the daemon's mask of file modes. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { buildImage } from "../../../test/support/registry.ts"
import { whenAborted } from "../../lib/when-aborted.ts"
import { unpackImage } from "../unpack.ts"
import { Pulls } from "./pulls.ts"

const mebibyte = 1024 * 1024
const canRun = process.getuid?.() === 0
const never = new AbortController().signal
const uid = 690_000 + (process.pid % 5000)
const umask = process.umask()
let dataDir: string
beforeAll(() => {
  process.umask(0o077)
  dataDir = mkdtempSync("/tmp/bhatti-archives-")
})
afterAll(() => {
  process.umask(umask)
  rmSync(dataDir, { recursive: true, force: true })
})

async function* once(bytes: Uint8Array) {
  yield bytes
}

test.skipIf(!canRun)("an import goes on when another one of the same archive is cancelled", async () => {
  const source = join(dataDir, "source")
  await buildImage(source, { layers: [{ hello: "1" }], config: { User: "7" } })
  const file = join(dataDir, "image.tar")
  expect(Bun.spawnSync(["tar", "-C", source, "-cf", file, "."]).exitCode).toBe(0)
  const gate = Promise.withResolvers<void>()
  const pulls = new Pulls({
    ...{ dataDir, trouble: undefined, registries: [], timeoutMs: 30_000, freeBytes: 0 },
    ...{ answerTimeoutMs: 30_000, stallMs: 30_000, fetchUids: [] },
    admit: () => Promise.reject(new Error("an import needs no network")),
    flatten: async () => {},
    async unpack(options) {
      const { promise, reject } = Promise.withResolvers<never>()
      const { signal = never } = options
      using _ = whenAborted(signal, () => reject(signal.reason))
      await Promise.race([gate.promise, promise])
      return await unpackImage(options)
    },
    ...{ unpackUid: uid, imageBytesMax: 1024 * mebibyte, layersBytesMax: 0 },
  })
  const begin = async (signal: AbortSignal) => {
    const archive = await pulls.receive(once(readFileSync(file)), { bytesMax: 1024 * mebibyte })
    const opened = await pulls.openArchive(archive, {
      origin: "usr_1",
      bytesMax: 1024 * mebibyte,
      signal: never,
    })
    const made = pulls.import(archive, {
      ...{ opened, signal, bytesMax: 1024 * mebibyte },
      onProgress: () => {},
    })
    return { archive, made }
  }
  const cancel = new AbortController()
  const first = await begin(cancel.signal)
  const second = await begin(never)
  // Both have looked for the disk by then, and wait for their work.
  for (let round = 0; round < 5; round++) await pulls.find("oci-missing")
  cancel.abort(new Error("cancelled"))
  await expect(first.made).rejects.toThrow("cancelled")
  await first.archive[Symbol.asyncDispose]()
  gate.resolve()
  expect(await second.made).toMatchObject({ config: { user: "7" } })
  await second.archive[Symbol.asyncDispose]()
  const tasks = join(dataDir, "registry", "tasks")
  expect(existsSync(tasks) ? readdirSync(tasks) : []).toEqual([])
})
