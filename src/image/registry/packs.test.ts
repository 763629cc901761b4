/**
 * Images on their way out and back: as an archive, and over Debian's docker-registry with TLS and a password. The tree
 * is the same, entry by entry.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createWriteStream, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { type DiskEntry, readExt4Tree } from "../../../test/support/ext4-tree.ts"
import { writeImage } from "../../../test/support/oci-layout.ts"
import {
  registryProgram,
  startRegistry,
  type TestRegistry,
  testLogin,
} from "../../../test/support/registry.ts"
import { tarOf } from "../../../test/support/tar-bytes.ts"
import { RegistryEgress } from "../../network/registry-egress.ts"
import { readArchive } from "../archive.ts"
import { unpackImage } from "../unpack.ts"
import { commitDisk, findMade } from "./commit-disk.ts"
import { Packs } from "./packs.ts"
import { Pulls } from "./pulls.ts"

const canRun = process.getuid?.() === 0 && registryProgram !== undefined && Bun.which("skopeo") !== null
if (!canRun) console.log("skipped: pushes need root, skopeo and docker-registry")
const firstUid = 686_000 + (process.pid % 5000)
const uids = [0, 1].map((number) => firstUid + number)

const config: ImageConfig = {
  user: "7:8",
  workdir: "/srv",
  env: { PATH: "/bin", GREETING: "hi = there" },
  entrypoint: ["/hello"],
  cmd: ["world"],
  ports: [80, 8080],
  labels: { "a.b": "c" },
}
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

describe.skipIf(!canRun)("an image that leaves", () => {
  let dataDir: string
  let registry: TestRegistry
  let egress: RegistryEgress
  let packs: Packs
  let pulls: Pulls
  let image: { name: string; hash: string; diskMib: number; config: ImageConfig }
  const signal = new AbortController().signal
  const quiet = { onProgress: () => undefined, bytesMax: 1024 ** 3, signal }
  const umask = process.umask()

  beforeAll(async () => {
    process.umask(0o077)
    dataDir = mkdtempSync("/tmp/bhatti-packs-")
    registry = await startRegistry({ isSecured: true })
    egress = new RegistryEgress({
      ...{ dataDir, subnet: "10.223.0.0/16", opened: [], upstreams: [], uids, ownerMax: 2 },
    })
    const fetch = {
      ...{ dataDir, timeoutMs: 30_000, answerTimeoutMs: 30_000, stallMs: 30_000, freeBytes: 0 },
      registries: [{ host: registry.host, isInsecure: false, caFile: registry.caFile }],
      admit: (...asked: Parameters<RegistryEgress["admit"]>) => egress.admit(...asked),
    }
    packs = new Packs({
      ...{ dataDir, trouble: undefined, fetch, uid: firstUid, freeBytes: 0 },
      filesOf: () => [],
    })
    pulls = new Pulls({
      ...fetch,
      ...{
        trouble: undefined,
        unpack: unpackImage,
        flatten: async () => {},
        fetchUids: uids,
        unpackUid: firstUid,
      },
      ...{ imageBytesMax: 1024 ** 3, layersBytesMax: 1024 ** 3 },
    })
    image = await install("oci-before")
  }, 60_000)
  afterAll(async () => {
    process.umask(umask)
    egress?.close()
    await registry?.[Symbol.asyncDispose]()
    rmSync(dataDir, { recursive: true, force: true })
  })

  const place = (name: string) => mkdtempSync(join(dataDir, `${name}-`))
  const diskOf = ({ name, hash }: { name: string; hash: string }) =>
    join(dataDir, "images", name, `${hash}.raw`)
  const nothingLeft = () => {
    const tasks = join(dataDir, "registry", "tasks")
    return existsSync(tasks) ? readdirSync(tasks) : []
  }

  async function install(diskName: string) {
    const layout = place("layout")
    const layer = tarOf([
      { name: "./", type: "5", mode: 0o755 },
      { name: "hello", mode: 0o4755, uid: 7, gid: 8, mtime: 1e9, content: "hello" },
      { name: "again", type: "1", linkname: "hello" },
      { name: "null", type: "3", major: 1, minor: 3, mode: 0o666 },
      { name: "ping", mode: 0o755, content: "elf", pax: { "SCHILY.xattr.security.capability": capability } },
      { name: "big", content: Buffer.alloc(3_000_000, "big ") },
      { name: "link", type: "2", linkname: "/hello" },
    ])
    const manifestDigest = await writeImage(layout, [layer])
    const { disk, sizeMib } = await unpackImage({
      layout,
      manifestDigest,
      directory: place("work"),
      uid: firstUid,
    })
    const staging = place("staging")
    await commitDisk({ dataDir, staging, diskName, disk, sizeMib, config })
    const made = await findMade(dataDir, diskName)
    if (!made) throw new Error("the image was not made")
    return { name: diskName, hash: made.hash, diskMib: made.diskMib, config }
  }

  function comparable(disk: string) {
    const first = new Map<number, string>()
    const show = ([name, { inode, content, isIndexed: _, ...rest }]: [string, DiskEntry]) => {
      if (!first.has(inode)) first.set(inode, name)
      return [name, { ...rest, text: content?.toString("latin1"), sameAs: first.get(inode) }]
    }
    return Object.fromEntries([...readExt4Tree(disk)].sort().map(show))
  }

  test("as an archive is what other programs read, and comes back as the same tree and configuration", async () => {
    const file = join(dataDir, "image.tar")
    const bytes = packs.export(image, { owner: "usr_1", shownAs: "registry.example/app:1", signal })
    await pipeline(bytes, createWriteStream(file))
    expect(nothingLeft()).toEqual([])
    for (const kind of ["docker-archive", "oci-archive"]) {
      const inspect = Bun.spawnSync(["skopeo", "inspect", "--config", `${kind}:${file}`])
      expect(inspect.stderr.toString()).toBe("")
      expect(JSON.parse(inspect.stdout.toString())).toMatchObject({
        config: { User: "7:8", Env: ["PATH=/bin", "GREETING=hi = there"], ExposedPorts: { "80/tcp": {} } },
      })
    }
    const read = await readArchive({
      archive: Bun.file(file).stream(),
      directory: place("again"),
      uid: firstUid,
    })
    if (read.kind !== "layers") throw new Error("it is no image's archive")
    expect(read.names).toContain("registry.example/app:1")
    const { disk, config: its } = await unpackImage({ ...read, directory: place("work"), uid: firstUid })
    expect(its).toEqual(config)
    expect(comparable(disk)).toEqual(comparable(diskOf(image)))
  }, 60_000)

  test("twice at once for one owner waits for the first, and ends with its reader", async () => {
    const options = { owner: "usr_1", shownAs: "app", signal }
    const first = packs.export(image, options)
    const second = packs.export(image, options)
    expect((await first.next()).done).toBe(false)
    const late = second.next()
    await first.return(undefined)
    expect((await late).done).toBe(false)
    await second.return(undefined)
    expect(nothingLeft()).toEqual([])
  }, 60_000)

  test("to a registry with TLS and a password is there for a pull, with the same tree", async () => {
    const to = { owner: "usr_1", host: registry.host, repository: "pushed", tag: "1", credential: testLogin }
    const states: { step: string; bytes: number }[] = []
    const { digest } = await packs.push(image, to, {
      signal,
      onProgress: ({ step, layers }) => states.push({ step, bytes: layers[0]?.bytes ?? 0 }),
    })
    expect(states.map(({ step }) => step)).toContain("pushing")
    const asked = { ...to, digest: null, platform: "linux/amd64" }
    const pull = await pulls.resolve(asked, signal)
    expect(pull.resolved.manifestDigest).toBe(digest)
    const made = await pulls.make(asked, pull, quiet)
    expect(made.config).toEqual(config)
    expect(comparable(diskOf({ name: made.diskName, hash: made.hash }))).toEqual(comparable(diskOf(image)))
    expect(nothingLeft()).toEqual([])
  }, 60_000)

  test("to a registry whose logins are asked at another server goes there and back, if that is the operator's", async () => {
    await using other = await startRegistry({ isSecured: true, withTokens: true })
    const tokenHost = other.tokens?.host
    const settings = (more: object) => ({
      ...{ dataDir, timeoutMs: 30_000, answerTimeoutMs: 30_000, stallMs: 30_000, freeBytes: 0 },
      registries: [{ host: other.host, isInsecure: false, caFile: other.caFile, ...more }],
      admit: (...asked: Parameters<RegistryEgress["admit"]>) => egress.admit(...asked),
    })
    const packsOf = (more: object) =>
      new Packs({
        ...{ dataDir, trouble: undefined, fetch: settings(more), uid: firstUid, freeBytes: 0 },
        filesOf: () => [],
      })
    const to = { owner: "usr_1", host: other.host, repository: "team/app", tag: "1", credential: testLogin }
    const { digest } = await packsOf({ tokenHost }).push(image, to, quiet)
    expect(other.tokens?.asked).toContainEqual({
      user: testLogin.username,
      scope: "repository:team/app:pull,push",
    })
    const asked = { ...to, digest: null, platform: "linux/amd64" }
    const pullsOf = (more: object) =>
      new Pulls({
        ...settings(more),
        ...{ trouble: undefined, unpack: unpackImage, flatten: async () => {}, fetchUids: uids },
        ...{ unpackUid: firstUid, imageBytesMax: 1024 ** 3, layersBytesMax: 1024 ** 3 },
      })
    expect((await pullsOf({ tokenHost }).resolve(asked, signal)).resolved.manifestDigest).toBe(digest)
    const wrong = { ...asked, credential: { ...testLogin, password: "wrong" } }
    const denied = { reason: "registry_denied" }
    await expect(pullsOf({ tokenHost }).resolve(wrong, signal)).rejects.toMatchObject(denied)
    const nobody = { ...asked, credential: undefined }
    await expect(pullsOf({ tokenHost }).resolve(nobody, signal)).rejects.toMatchObject(denied)
    // An internal server that the operator has not named stays out of reach.
    const unnamed = pullsOf({}).resolve(asked, signal)
    await expect(unnamed).rejects.toMatchObject({ reason: "registry_unreachable" })
  }, 60_000)

  test("without the password, or to a place that nobody listens at, is refused with its reason", async () => {
    const to = { owner: "usr_1", host: registry.host, repository: "denied", tag: "1" }
    await expect(packs.push(image, to, quiet)).rejects.toMatchObject({
      reason: "registry_denied",
      message: expect.stringContaining("let you push"),
    })
    const nowhere = { ...to, host: "127.0.0.1:1" }
    await expect(packs.push(image, nowhere, quiet)).rejects.toMatchObject({ reason: "registry_unreachable" })
    const stopped = packs.push(image, to, { ...quiet, signal: AbortSignal.abort(new Error("cancelled")) })
    await expect(stopped).rejects.toThrow("cancelled")
    expect(nothingLeft()).toEqual([])
  }, 60_000)
})
