/**
 * Pulls against Debian's docker-registry on loopback, one with TLS and a password and a plain one, with the network's
 * real rules and the real unpacker, under the daemon's mask of file modes.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../../../test/support/installation.ts"
import {
  buildImage,
  registryProgram,
  startRegistry,
  type TestRegistry,
  testLogin,
} from "../../../test/support/registry.ts"
import { listPids, readOfProcess } from "../../lib/process-identity.ts"
import { RegistryEgress } from "../../network/registry-egress.ts"
import { unpackImage } from "../unpack.ts"
import { runConfined } from "./confined.ts"
import { type PullSettings, Pulls } from "./pulls.ts"

const canRun = process.getuid?.() === 0 && registryProgram !== undefined && Bun.which("skopeo") !== null
if (!canRun) console.log("skipped: pulls need root, skopeo and docker-registry")
const firstUid = 680_000 + (process.pid % 5000)
const platform = "linux/amd64"

describe.skipIf(!canRun)("a pull", () => {
  let dataDir: string
  let secured: TestRegistry
  let plain: TestRegistry
  let egress: RegistryEgress
  let pulls: Pulls
  const signal = new AbortController().signal
  const quiet = { onProgress: () => {}, bytesMax: 1024 ** 3, signal }

  const uids = [0, 1, 2, 3].map((number) => firstUid + number)
  function pullsOf(changes: Partial<PullSettings> = {}): Pulls {
    return new Pulls({
      dataDir,
      trouble: undefined,
      registries: [
        { host: secured.host, isInsecure: false, caFile: secured.caFile },
        { host: plain.host, isInsecure: true, caFile: undefined },
      ],
      admit: (own, owner, signal) => egress.admit(own, owner, signal),
      timeoutMs: 30_000,
      answerTimeoutMs: 30_000,
      stallMs: 30_000,
      freeBytes: 0,
      unpack: unpackImage,
      flatten: async () => {},
      fetchUids: uids,
      unpackUid: firstUid,
      imageBytesMax: 1024 ** 3,
      layersBytesMax: 1024 ** 3,
      ...changes,
    })
  }

  // As the daemon has it.
  const umask = process.umask()
  beforeAll(async () => {
    process.umask(0o077)
    dataDir = mkdtempSync("/tmp/bhatti-pulls-")
    ;[secured, plain] = await Promise.all([
      startRegistry({ isSecured: true }),
      startRegistry({ isSecured: false }),
    ])
    egress = new RegistryEgress({
      ...{ dataDir, subnet: "10.222.0.0/16", opened: [], upstreams: [] },
      uids,
      ownerMax: 2,
    })
    pulls = pullsOf()
  })
  afterAll(async () => {
    process.umask(umask)
    egress.close()
    await secured[Symbol.asyncDispose]()
    await plain[Symbol.asyncDispose]()
    rmSync(dataDir, { recursive: true, force: true })
  })

  const nothingLeft = () => {
    const tasks = join(dataDir, "registry", "tasks")
    return existsSync(tasks) ? readdirSync(tasks) : []
  }
  /** Programs that run with a user id of fetchers. */
  const programs = () =>
    listPids().filter((pid) => {
      const status = readOfProcess(pid, "status")
      return !/^State:\tZ/m.test(status) && uids.includes(Number(/^Uid:\t(\d+)/m.exec(status)?.[1]))
    })
  async function imageOf(name: string, ...layers: Record<string, string>[]) {
    return await buildImage(mkdtempSync(join(secured.directory, `${name}-`)), {
      layers,
      config: { Env: ["A=b"], Cmd: ["/hello"], User: "7" },
    })
  }
  const ask = (host: string, repository: string, changes = {}) => ({
    ...{ host, repository, tag: "1", digest: null, platform, owner: "usr_1" },
    ...(host === secured.host && { credential: testLogin }),
    ...changes,
  })

  test("makes a disk of an image behind TLS and a password, and leaves nothing else", async () => {
    const image = await imageOf("app", { hello: "one" }, { more: "two" })
    await secured.push(image, "app:1")
    const asked = ask(secured.host, "app")
    const pull = await pulls.resolve(asked, signal)
    expect(pull.resolved.manifestDigest).toBe(image.manifestDigest)
    const steps = new Set<string>()
    const made = await pulls.make(asked, pull, { ...quiet, onProgress: ({ step }) => steps.add(step) })
    expect(made.config).toMatchObject({ user: "7", env: { A: "b" }, cmd: ["/hello"] })
    expect(await pulls.find(pull.resolved.diskName)).toEqual(made)
    expect([...steps]).toContain("fetching")
    expect(nothingLeft()).toEqual([])
    const pinned = { ...asked, tag: null, digest: image.manifestDigest }
    expect((await pulls.resolve(pinned, signal)).resolved.diskName).toBe(made.diskName)
  })

  test("of an image that shares layers fetches only the others, and a second one fetches none", async () => {
    const base = [{ base: "1" }, { base2: "2" }, { base3: "3" }]
    await plain.push(await imageOf("base", ...base), "base:1")
    await plain.push(await imageOf("child", ...base, { own: "4" }), "child:1")
    const pull = async (repository: string) => {
      const asked = ask(plain.host, repository)
      return await pulls.make(asked, await pulls.resolve(asked, signal), quiet)
    }
    await pull("base")
    const before = plain.blobRequests()
    await pull("child")
    // Its configuration and one layer.
    expect(plain.blobRequests() - before).toBe(2)
    const again = plain.blobRequests()
    await pull("child")
    expect(plain.blobRequests() - again).toBe(0)
  })

  test("asked for twenty times at once is one download, and all of them get it", async () => {
    await plain.push(await imageOf("many", { many: "x".repeat(200_000) }), "many:1")
    const before = plain.blobRequests()
    const asked = ask(plain.host, "many")
    const all = Array.from({ length: 20 }, async () =>
      pulls.make(asked, await pulls.resolve(asked, signal), quiet),
    )
    const names = new Set((await Promise.all(all)).map(({ diskName }) => diskName))
    expect(names.size).toBe(1)
    expect(plain.blobRequests() - before).toBe(2)
  }, 60_000)

  test("without the password, of a missing tag, or from a host without a registry is refused with its reason", async () => {
    const reasonOf = (asked: Parameters<Pulls["resolve"]>[0]) =>
      pulls.resolve(asked, signal).then(
        () => "none",
        (error: { reason?: string }) => error.reason,
      )
    await secured.push(await imageOf("private", { a: "1" }), "private:1")
    expect(await reasonOf(ask(secured.host, "private", { credential: undefined }))).toBe("registry_denied")
    const wrong = { username: "tester", password: "wrong" }
    expect(await reasonOf(ask(secured.host, "private", { credential: wrong }))).toBe("registry_denied")
    expect(await reasonOf(ask(plain.host, "nowhere"))).toBe("not_in_registry")
    expect(await reasonOf(ask("127.0.0.1:1", "app"))).toBe("registry_unreachable")
    expect(nothingLeft()).toEqual([])
  })

  test("chooses this platform, and names those that there are if it is missing", async () => {
    const layers = [{ a: "1" }]
    const both = await buildImage(
      mkdtempSync(join(plain.directory, "both-")),
      { layers, arch: "arm64" },
      { layers: [{ b: "2" }] },
    )
    await plain.push(both, "both:1")
    const pull = await pulls.resolve(ask(plain.host, "both"), signal)
    expect(pull.resolved.indexDigest).not.toBe(pull.resolved.manifestDigest)
    expect((await pulls.make(ask(plain.host, "both"), pull, quiet)).diskName).toBe(pull.resolved.diskName)
    const other = pulls.resolve(ask(plain.host, "both", { platform: "linux/s390x" }), signal)
    await expect(other).rejects.toMatchObject({
      reason: "wrong_platform",
      hint: expect.stringContaining("linux/arm64, linux/amd64"),
    })
  })

  test("refuses layers that are swapped in the registry, and more bytes than are permitted", async () => {
    const image = await imageOf("swapped", { swapped: "x".repeat(5000) })
    await plain.push(image, "swapped:1")
    const hex = image.layers[0]?.slice("sha256:".length) ?? ""
    const stored = join(
      plain.directory,
      "storage/docker/registry/v2/blobs/sha256",
      hex.slice(0, 2),
      hex,
      "data",
    )
    const bytes = readFileSync(stored)
    writeFileSync(
      stored,
      bytes.map((byte, at) => (at === bytes.length - 20 ? byte ^ 1 : byte)),
    )
    const asked = ask(plain.host, "swapped")
    const pull = await pulls.resolve(asked, signal)
    await expect(pulls.make(asked, pull, quiet)).rejects.toMatchObject({ reason: "wrong_digest" })
    const small = pullsOf({ imageBytesMax: 10 })
    await expect(small.make(asked, pull, quiet)).rejects.toMatchObject({ code: "too_large" })
    expect(await pulls.find(pull.resolved.diskName)).toBeUndefined()
    expect(nothingLeft()).toEqual([])
  })

  test("that ends at the limit of the caller who began it is begun again for one who may take more", async () => {
    await plain.push(await imageOf("bounded", { bounded: "x".repeat(300_000) }), "bounded:1")
    const asked = ask(plain.host, "bounded")
    const pull = await pulls.resolve(asked, signal)
    const begun = Promise.withResolvers<void>()
    const small = pulls.make(asked, pull, { ...quiet, onProgress: () => begun.resolve(), bytesMax: 100_000 })
    small.catch(() => undefined)
    await begun.promise
    const large = pulls.make(asked, pull, quiet)
    await expect(small).rejects.toMatchObject({ reason: "too_many_bytes" })
    expect((await large).diskName).toBe(pull.resolved.diskName)
    expect(nothingLeft()).toEqual([])
  })

  test("that the last caller leaves ends, and leaves nothing; another caller's goes on", async () => {
    await plain.push(await imageOf("left", { left: "1" }), "left:1")
    const asked = ask(plain.host, "left")
    const pull = await pulls.resolve(asked, signal)
    const [one, other] = [new AbortController(), new AbortController()]
    const first = pulls.make(asked, pull, { ...quiet, signal: one.signal })
    const second = pulls.make(asked, pull, { ...quiet, signal: other.signal })
    one.abort(new Error("left"))
    await expect(first).rejects.toThrow("left")
    expect((await second).diskName).toBe(pull.resolved.diskName)
    await plain.push(await imageOf("gone", { gone: "1" }), "gone:1")
    const gone = ask(plain.host, "gone")
    const third = pulls.make(gone, await pulls.resolve(gone, signal), { ...quiet, signal: other.signal })
    other.abort(new Error("left"))
    await expect(third).rejects.toThrow("left")
    expect(nothingLeft()).toEqual([])
  })

  test("of a disk that nothing needs any more is removed", async () => {
    await plain.push(await imageOf("unused", { unused: "1" }), "unused:1")
    const asked = ask(plain.host, "unused")
    const made = await pulls.make(asked, await pulls.resolve(asked, signal), quiet)
    expect(await pulls.removeUnused(async ({ hash }) => hash === made.hash)).not.toContain(made.diskName)
    const isOther = async ({ name }: { name: string }) => name !== made.diskName
    const removed = await Promise.all([pulls.removeUnused(isOther), pulls.removeUnused(isOther)])
    expect(removed.flat()).toEqual([made.diskName])
    expect(nothingLeft()).toEqual([])
    expect(await pulls.find(made.diskName)).toBeUndefined()
  })

  test("reaches no service of the host and no internal address, also by a redirect", async () => {
    const asked: string[] = []
    const target = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch(request) {
        asked.push(request.url)
        return new Response("internal")
      },
    })
    // A registry of the operator's that sends its callers on to an address that is not its own.
    const hostile = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) =>
        new URL(request.url).pathname === "/v2/"
          ? new Response("{}", { headers: { "docker-distribution-api-version": "registry/2.0" } })
          : Response.redirect(`http://127.0.0.1:${target.port}/stolen`, 307),
    })
    try {
      const host = `127.0.0.1:${hostile.port}`
      const admitted = pullsOf({ registries: [{ host, isInsecure: true, caFile: undefined }] })
      await expect(admitted.resolve(ask(host, "app"), signal)).rejects.toMatchObject({ code: "unavailable" })
      const direct = pulls.resolve(ask(`127.0.0.1:${target.port}`, "app"), signal)
      await expect(direct).rejects.toMatchObject({ reason: "registry_unreachable" })
      expect(asked).toEqual([])
    } finally {
      await hostile.stop(true)
      await target.stop(true)
    }
  })

  test("shows credentials in no argument and no file of the data directory", async () => {
    await secured.push(await imageOf("seen", { seen: "x".repeat(300_000) }), "seen:1")
    const asked = ask(secured.host, "seen")
    const pull = await pulls.resolve(asked, signal)
    const seen: string[] = []
    const making = pulls.make(asked, pull, quiet)
    let isOver = false
    const looking = (async () => {
      while (!isOver) {
        for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
          try {
            seen.push(
              readFileSync(`/proc/${pid}/cmdline`, "utf8"),
              readFileSync(`/proc/${pid}/environ`, "utf8"),
            )
          } catch {
            // It has ended.
          }
        }
        await Bun.sleep(1)
      }
    })()
    await making
    isOver = true
    await looking
    await until("skopeo was seen", async () => seen.some((text) => text.includes("skopeo")))
    const encoded = Buffer.from(`${testLogin.username}:${testLogin.password}`).toString("base64")
    for (const secret of [testLogin.password, encoded]) {
      expect(seen.filter((text) => text.includes("pull") && text.includes(secret))).toEqual([])
      expect(Bun.spawnSync(["grep", "-r", "-l", secret, dataDir]).stdout.toString()).toBe("")
    }
  })

  describe("from a registry that never answers", () => {
    let silent: Bun.TCPSocketListener<undefined>
    let host: string
    beforeAll(() => {
      silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
      host = `127.0.0.1:${silent.port}`
    })
    afterAll(() => silent.stop(true))
    const silentPulls = (changes: Partial<PullSettings> = {}) =>
      pullsOf({ registries: [{ host, isInsecure: true, caFile: undefined }], ...changes })

    test("ends at once when it is cancelled, with its program", async () => {
      const stop = new AbortController()
      const resolving = silentPulls().resolve(ask(host, "app"), stop.signal)
      resolving.catch(() => undefined)
      await until("the program runs", async () => programs().length > 0)
      const beginMs = performance.now()
      stop.abort(new Error("cancelled"))
      await expect(resolving).rejects.toThrow("cancelled")
      expect(performance.now() - beginMs).toBeLessThan(2000)
      expect(programs()).toEqual([])
      expect(nothingLeft()).toEqual([])
    }, 20_000)

    test("ends also when it is cancelled before its program runs", async () => {
      // From no program at all to one that runs.
      for (let delayMs = 0; delayMs < 20; delayMs++) {
        const stop = new AbortController()
        const directory = join(mkdtempSync(join(dataDir, "cancelled-")), "work")
        mkdirSync(directory)
        const ended = runConfined(["/usr/bin/sleep", "60"], {
          ...{ directory, uid: firstUid, fileBytesMax: 1024, deadlineMs: 5000, signal: stop.signal },
        })
        ended.catch(() => undefined)
        if (delayMs > 0) await Bun.sleep(delayMs)
        stop.abort(new Error("cancelled"))
        const beginMs = performance.now()
        await expect(ended).rejects.toThrow("cancelled")
        expect(performance.now() - beginMs).toBeLessThan(2000)
      }
    }, 20_000)

    test("that stops in the middle of a layer ends after some time without a byte", async () => {
      const image = await imageOf("stalled", { stalled: randomBytes(400_000).toString("hex") })
      await plain.push(image, "stalled:1")
      const half = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        idleTimeout: 0,
        async fetch(request) {
          const { pathname, search } = new URL(request.url)
          const answer = await fetch(`http://${plain.host}${pathname}${search}`, { headers: request.headers })
          if (!pathname.endsWith(image.layers[0] ?? "")) return answer
          const part = (await answer.bytes()).subarray(0, 1000)
          const { promise } = Promise.withResolvers<void>()
          const stream = async function* () {
            yield part
            await promise
          }
          return new Response(stream(), { headers: answer.headers })
        },
      })
      try {
        const host = `127.0.0.1:${half.port}`
        const registries = [{ host, isInsecure: true, caFile: undefined }]
        const stalled = pullsOf({ registries, stallMs: 1500 })
        const asked = ask(host, "stalled")
        const pull = await stalled.resolve(asked, signal)
        await expect(stalled.make(asked, pull, quiet)).rejects.toMatchObject({
          code: "unavailable",
          reason: "registry_silent",
          message: expect.stringContaining("no byte"),
        })
        expect([programs(), nothingLeft()]).toEqual([[], []])
      } finally {
        await half.stop(true)
      }
    }, 30_000)

    test("ends at its deadline, and says which one it is", async () => {
      const late = silentPulls({ answerTimeoutMs: 1000 }).resolve(ask(host, "app"), signal)
      await expect(late).rejects.toMatchObject({
        code: "unavailable",
        message: `the registry ${host} does not answer`,
        reason: "registry_silent",
      })
      expect(programs()).toEqual([])
    }, 20_000)
  })

  test("that an earlier daemon has left is ended before another begins", async () => {
    const spawn = (uid: number) =>
      Bun.spawn(["setpriv", "--reuid", `${uid}`, "--regid", `${uid}`, "--clear-groups", "sleep", "60"])
    const left = uids.map(spawn)
    try {
      await until("they run", async () => programs().length === left.length)
      await pulls.removeUnfinished()
      expect(programs()).toEqual([])
      for (const child of left) {
        await child.exited
        expect(child.signalCode).toBe("SIGKILL")
      }
      await pulls.removeUnfinished()
    } finally {
      for (const child of left) child.kill("SIGKILL")
    }
  })
})
