/** Kit disks: built alike each time, found by their kernel, replaced when damaged, removed when unused. */
import { afterAll, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { truncate } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { kitPackages } from "../../images/kit.ts"
import { runProgram } from "../lib/program.ts"
import { healInstalled } from "./install.ts"
import { type BuiltKit, makeKitDisk, parsePolicy, versionsToUse } from "./kit.ts"
import { installKit, readKitFor, removeUnusedKits } from "./kits.ts"
import { hashLength, type KitManifest, kitHash } from "./manifest.ts"
import { diskDigest } from "./sparse.ts"
import { listDamage } from "./survey.ts"

const root = mkdtempSync(join(tmpdir(), "bhatti-kits-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

let made = 0
function place(): { dataDir: string; cacheDir: string } {
  made += 1
  return { dataDir: join(root, `${made}`, "data"), cacheDir: join(root, `${made}`, "cache") }
}

async function cachedKit(cacheDir: string, content: string, kernelVersion = "6.1.0"): Promise<BuiltKit> {
  const key = createHash("sha256").update(content).digest("hex").slice(0, hashLength)
  const file = join(cacheDir, "kits", key, "disk.raw")
  await Bun.write(file, content)
  await truncate(file, 2 * 1024 * 1024)
  const digest = await diskDigest(file)
  const hash = kitHash({ digest, kernelVersion, packages: {} })
  const manifest = { kind: "kit", hash, sizeMib: 2, digest, kernelVersion, packages: {} } as const
  await Bun.write(join(dirname(file), "manifest.json"), JSON.stringify(manifest satisfies KitManifest))
  utimesSync(join(dirname(file), "manifest.json"), made, ++made)
  return { hash, file }
}

test("a kernel gets the newest kit with its modules, and none of another kernel", async () => {
  const { dataDir, cacheDir } = place()
  expect(await readKitFor(dataDir, { version: "6.1.0" })).toBeUndefined()
  await installKit(dataDir, await cachedKit(cacheDir, "first"))
  const second = await installKit(dataDir, await cachedKit(cacheDir, "second"))
  await installKit(dataDir, await cachedKit(cacheDir, "third", "6.2.0"))
  expect(await readKitFor(dataDir, { version: "6.1.0" })).toEqual(second)
  expect(await readKitFor(dataDir, { version: "6.3.0" })).toBeUndefined()
})

test("a damaged kit is told by the doctor and replaced by the cache's", async () => {
  const { dataDir, cacheDir } = place()
  const kit = await installKit(dataDir, await cachedKit(cacheDir, "content"))
  expect(await listDamage(dataDir)).toEqual([])
  // A file of its own, as a copy that was put back would be.
  rmSync(kit.file)
  writeFileSync(kit.file, "another")
  await truncate(kit.file, 2 * 1024 * 1024)
  expect((await listDamage(dataDir)).map(({ message }) => message)).toEqual([
    `the file ${kit.file} is missing or damaged`,
  ])
  expect(await healInstalled(dataDir, cacheDir)).toEqual([])
  expect(readFileSync(kit.file).subarray(0, 7).toString()).toBe("content")
  expect(await listDamage(dataDir)).toEqual([])
})

test("a kit goes when no kernel and no machine needs it, and nothing goes while that cannot be known", async () => {
  const { dataDir, cacheDir } = place()
  const old = await installKit(dataDir, await cachedKit(cacheDir, "old"))
  const used = await installKit(dataDir, await cachedKit(cacheDir, "used"))
  const next = await installKit(dataDir, await cachedKit(cacheDir, "next"))
  const options = {
    kernels: [{ version: "6.1.0" }],
    isOld: async () => true,
    needed: async () => new Set([`kits/${used.hash}.raw`]),
  }
  expect(await removeUnusedKits(dataDir, { ...options, needed: async () => undefined })).toEqual([])
  expect(await removeUnusedKits(dataDir, { ...options, isOld: async () => false })).toEqual([])
  expect(await removeUnusedKits(dataDir, options)).toEqual([old.file])
  expect([used, next].every(({ file }) => existsSync(file))).toBe(true)
})

test("the same files give the same disk, whenever they were made", async () => {
  const digests: string[] = []
  for (const time of [1, 2]) {
    const tree = join(root, `tree-${time}`)
    mkdirSync(join(tree, "bin"), { recursive: true })
    writeFileSync(join(tree, "bin", "program"), "text")
    chmodSync(join(tree, "bin", "program"), 0o755)
    utimesSync(join(tree, "bin", "program"), time, time)
    const disk = join(root, `disk-${time}`)
    await runProgram(["sh", "-euc", makeKitDisk, "sh", tree, disk], { deadlineMs: 30_000 })
    digests.push(await diskDigest(disk))
  }
  expect(digests[0]).toBe(digests[1] ?? "")
})

test("apt's answer has each package's candidate", () => {
  const text = `libc6:
  Installed: 2.36-9
  Candidate: 2.36-10
  Version table:
     2.36-10 500
busybox-static:
  Installed: (none)
  Candidate: 1:1.35.0-4
unknown:
  Installed: (none)
  Candidate: (none)
`
  expect(parsePolicy(text)).toEqual({ libc6: "2.36-10", "busybox-static": "1:1.35.0-4" })
})

test("a host without package lists, whose apt names only what is installed, goes on with the last build's versions", () => {
  const stanza = (name: string) => `${name}:\n  Installed: 1\n  Candidate: 1\n`
  const last = { libc6: "2", libssl3: "2", ...Object.fromEntries(kitPackages.map((name) => [name, "2"])) }
  expect(versionsToUse(stanza("libc6"), last)).toEqual(last)
  expect(versionsToUse(stanza("libc6"), undefined)).toEqual({ libc6: "1" })
  const all = Object.keys(last).map(stanza).join("")
  expect(versionsToUse(all, last)).toEqual(Object.fromEntries(Object.keys(last).map((name) => [name, "1"])))
})
