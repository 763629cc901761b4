/** The HTTP interface through its real application and a real store, on a fake host. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { RateLimits } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { limits, truncatedHeader } from "@bhatti/contract/limits"
import { Sandbox } from "@bhatti/contract/sandbox"
import { ErrorBody } from "@bhatti/contract/system"
import { newCore } from "../../src/core/assemble.ts"
import type { Core } from "../../src/core/core.ts"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { createApp } from "../../src/http/app.ts"
import { openStore } from "../../src/store/store.ts"
import { answering, type FakeHost, fakeHost } from "../support/fake-host.ts"
import { until } from "../support/installation.ts"
import { type ServedApp, serveApp } from "../support/served-app.ts"
import { askSocket, sampleRequests } from "./samples.ts"

let host: FakeHost
let core: Core
let served: ServedApp
let alice: string
let bob: string

beforeEach(async () => {
  host = fakeHost()
  const store = await openStore({ memory: true })
  const silent = { info() {}, warn() {}, error() {} }
  core = newCore({
    store,
    host,
    log: silent,
    settings: {
      thermal: { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 },
      diskReserveMib: 1024,
      memoryReserveMib: 512,
      templateDiskMib: 8192,
      pool: { sizeMax: 0, memoryMibMax: 0 },
      publicAddress: { scheme: "http", domain: "localhost", port: 8080 },
      guestDefaults: {},
    },
  })
  const about = { version: "0.0.0", accelerator: "tcg" as const, acceleratorReason: "test", warnings: [] }
  const app = createApp(core, about, { apiHosts: [], rates: new RequestRates(RateLimits.parse({})) })
  served = serveApp(core, app)
  alice = (await store.users.create({ name: "alice", maxSandboxes: 3, maxCpus: 2, maxMemoryMib: 1024 })).key
  bob = (await store.users.create({ name: "bob" })).key
})

afterEach(async () => {
  await served[Symbol.asyncDispose]()
  await core.events.flush()
  await core.store.close()
})

async function call(
  method: string,
  path: string,
  options: { key?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<{ status: number; body: unknown; headers: Headers }> {
  const response = await fetch(`${served.url}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${options.key ?? alice}`,
      "content-type": "application/json",
      ...options.headers,
    },
    ...(options.body !== undefined && {
      body: typeof options.body === "string" ? options.body : JSON.stringify(options.body),
    }),
  })
  const text = await response.text()
  return {
    status: response.status,
    body: text === "" ? undefined : JSON.parse(text),
    headers: response.headers,
  }
}

describe("sandboxes", () => {
  test("a misspelt name is answered with the one that was meant, but not with another user's", async () => {
    await call("POST", "/sandboxes", { body: { name: "worker" } })
    const misspelt = { message: 'no sandbox named "wroker"' }
    expect((await call("GET", "/sandboxes/wroker")).body).toMatchObject({
      ...misspelt,
      hint: "did you mean worker?",
    })
    expect((await call("GET", "/sandboxes/wroker", { key: bob })).body).toMatchObject({
      ...misspelt,
      hint: null,
      subject: { kind: "sandbox", name: "wroker" },
    })
  })

  test("one is created, shown by name and by id, listed and destroyed", async () => {
    const created = await call("POST", "/sandboxes", { body: { name: "dev" } })
    expect(created.status).toBe(201)
    const sandbox = Sandbox.parse(created.body)
    expect(sandbox).toMatchObject({ name: "dev", status: "running", thermal: "hot", cpus: 1, memory_mb: 512 })

    expect((await call("GET", "/sandboxes/dev")).body).toEqual(created.body)
    expect((await call("GET", `/sandboxes/${sandbox.id}`)).body).toEqual(created.body)
    expect((await call("GET", "/sandboxes")).body).toEqual([created.body])

    expect(await call("DELETE", "/sandboxes/dev")).toMatchObject({
      status: 200,
      body: { status: "destroyed" },
    })
    expect((await call("GET", "/sandboxes")).body).toEqual([])
    expect(host.running.size).toBe(0)
    expect(host.directories.size).toBe(0)
  })

  test("one without a name gets a friendly one", async () => {
    const { body } = await call("POST", "/sandboxes", { body: {} })
    expect(Sandbox.parse(body).name).toMatch(/^[a-z]+-[a-z]+$/)
  })

  test("a name that is taken is a conflict and makes nothing", async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    const again = await call("POST", "/sandboxes", { body: { name: "dev" } })
    expect(again.status).toBe(409)
    expect(ErrorBody.parse(again.body)).toMatchObject({ code: "conflict", retryable: false })
    expect(host.running.size).toBe(1)
  })

  test("of fifty creates of one name at once, one is made", async () => {
    const { key } = await core.store.users.create({ name: "carol", maxSandboxes: 100 })
    const all = await Promise.all(
      Array.from({ length: 50 }, () => call("POST", "/sandboxes", { key, body: { name: "same" } })),
    )
    expect(all.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(all.filter(({ status }) => status === 409)).toHaveLength(49)
    expect(host.running.size).toBe(1)
  })

  test("slots of living sandboxes are never shared and are used again", async () => {
    const { key } = await core.store.users.create({ name: "carol", maxSandboxes: 100 })
    const all = await Promise.all(
      Array.from({ length: 10 }, () => call("POST", "/sandboxes", { key, body: {} })),
    )
    expect(new Set((await core.store.sandboxes.listOnHost()).map(({ slot }) => slot)).size).toBe(10)
    await call("DELETE", `/sandboxes/${Sandbox.parse(all[3]?.body).id}`, { key })
    await call("POST", "/sandboxes", { key, body: {} })
    expect((await core.store.sandboxes.listOnHost()).map(({ slot }) => slot)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
    ])
  })

  test.each([
    ["a name with a slash", { name: "a/b" }],
    ["a name of dots", { name: ".." }],
    ["a name of one dot", { name: "." }],
    ["a name that leads elsewhere", { name: "../x" }],
    ["a name that is encoded", { name: "%2e%2e" }],
    ["a name beyond ASCII", { name: "dév" }],
    ["a name with a line break", { name: "a\nb" }],
    ["a name with an option's comma", { name: "a,b=c" }],
    ["a name that starts with a hyphen", { name: "-rf" }],
    ["a name of 64 letters", { name: "a".repeat(64) }],
    ["an empty name", { name: "" }],
    ["zero cpus", { cpus: 0 }],
    ["negative cpus", { cpus: -1 }],
    ["half a cpu", { cpus: 0.5 }],
    ["too many cpus", { cpus: 1e9 }],
    ["no memory", { memory_mb: 0 }],
    ["memory that wraps", { memory_mb: 2 ** 53 }],
    ["a disk that is too small", { disk_size_mb: 10 }],
    ["a field that does not exist", { flavour: "large" }],
    ["a variable with a bad name", { env: { "A-B": "x" } }],
    ["an image that is a path", { image: "../x" }],
    ["a name like an id", { name: "sb_0123456789abcdef" }],
  ])("%s is refused as invalid", async (_what, body) => {
    const answer = await call("POST", "/sandboxes", { body })
    expect(answer.status).toBe(400)
    expect(ErrorBody.parse(answer.body).code).toBe("invalid")
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
  })

  test("what other clients say and mean nothing by is accepted, as are nulls; what they mean is refused", async () => {
    const nothing = { volumes: [], mounts: [], new_volumes: null, hugepages: false, template_id: "" }
    const made = await call("POST", "/sandboxes", {
      body: { name: "dev", ...nothing, env: null, init: null },
    })
    expect(made.status).toBe(201)
    const body = { cmd: ["true"], detach: false, output_file: "", cwd: null }
    expect((await call("POST", "/sandboxes/dev/exec", { body })).status).toBe(200)
    for (const meant of [{ volumes: ["data"] }, { hugepages: true }, { template_id: "t" }]) {
      const refused = await call("POST", "/sandboxes", { body: meant })
      expect(refused).toMatchObject({ status: 400, body: { code: "invalid" } })
    }
  })

  test("limits of the user hold: cpus, memory, count", async () => {
    expect(await call("POST", "/sandboxes", { body: { cpus: 3 } })).toMatchObject({ status: 400 })
    expect(await call("POST", "/sandboxes", { body: { memory_mb: 2048 } })).toMatchObject({ status: 400 })
    const many = await Promise.all(Array.from({ length: 8 }, () => call("POST", "/sandboxes", { body: {} })))
    expect(many.filter(({ status }) => status === 201)).toHaveLength(3)
    expect(many.filter(({ status }) => status === 429)).toHaveLength(5)
    expect(host.running.size).toBe(3)
  })

  test("a key that is none is told by its own rule", async () => {
    for (const [body, message] of [
      [
        { labels: { "ä ö": "1" } },
        "labels.ä ö: a label's key has letters, digits, dots, underscores or hyphens",
      ],
      [{ env: { "A-B": "1" } }, "env.A-B: a variable's name has letters, digits and underscores"],
    ] as const) {
      const answer = await call("POST", "/sandboxes", { body })
      expect(answer.status).toBe(400)
      expect(ErrorBody.parse(answer.body).message).toBe(message)
    }
  })

  test("more at once than the user may have are refused before one is made", async () => {
    const answer = await call("POST", "/sandboxes/batch", { body: { name: "w", count: 4 } })
    expect(answer.status).toBe(429)
    expect(ErrorBody.parse(answer.body).message).toBe("4 sandboxes are above your limit of 3")
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
    // The first would have got here.
    expect(host.identities).toEqual([])
  })

  test("an image that does not exist is not found, with the next step", async () => {
    const answer = await call("POST", "/sandboxes", { body: { image: "windows" } })
    expect(answer.status).toBe(404)
    expect(ErrorBody.parse(answer.body).subject).toMatchObject({ kind: "installation" })
  })

  test("a nearly full host refuses to create", async () => {
    host.freeMibNow = 100
    const answer = await call("POST", "/sandboxes", { body: {} })
    expect(answer.status).toBe(503)
    expect(ErrorBody.parse(answer.body).message).toContain("100 MB")
  })

  test.each(["template", "disk", "clone", "personalise", "grow"])(
    "a create that fails at %s leaves nothing",
    async (step) => {
      host.failAt = step
      const answer = await call("POST", "/sandboxes", { body: { name: "dev", disk_size_mb: 16_384 } })
      expect(answer.status).toBe(503)
      expect(host.running.size).toBe(0)
      expect(host.directories.size).toBe(0)
      expect(await core.store.sandboxes.listOnHost()).toEqual([])
      host.failAt = undefined
      expect(await call("POST", "/sandboxes", { body: { name: "dev" } })).toMatchObject({ status: 201 })
    },
  )

  test("two destroys at once: one does it, the other finds nothing", async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    const both = await Promise.all([call("DELETE", "/sandboxes/dev"), call("DELETE", "/sandboxes/dev")])
    expect(both.map(({ status }) => status).sort()).toEqual([200, 404])
  })
})

describe("when the host refuses the clean-up too", () => {
  let later: (() => void)[]
  beforeEach(() => {
    later = []
    core.clock = {
      ...core.clock,
      after: (_ms, work) => {
        later.push(work)
        return { cancel: () => undefined }
      },
    }
  })
  const records = () => core.store.sandboxes.listOnHost()
  const refuseTo = (remove: () => Promise<void>) => {
    const real = host.disks.removeSandbox
    host.disks.removeSandbox = async (id) => {
      await remove()
      host.disks.removeSandbox = real
      await real(id)
    }
  }
  const tryAgain = () => {
    for (const work of later.splice(0)) work()
  }

  test("what is left of a create goes later, again and again until that works, and its name is free", async () => {
    let refusals = 2
    refuseTo(async () => {
      if (refusals-- > 0) throw Object.assign(new Error("EIO"), { code: "EIO" })
    })
    host.failAt = "clone"
    expect((await call("POST", "/sandboxes", { body: { name: "dev" } })).status).toBe(503)
    host.failAt = undefined
    expect((await records()).map(({ name }) => name)).toEqual(["dev"])
    await until("it is gone", async () => {
      tryAgain()
      return (await records()).length === 0
    })
    expect(refusals).toBeLessThan(0)
    expect(host.directories.size).toBe(0)
    expect((await call("POST", "/sandboxes", { body: { name: "dev" } })).status).toBe(201)
  })

  test("a destroy says so and is finished later", async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    let isRefused = true
    refuseTo(async () => {
      if (isRefused) throw Object.assign(new Error("EROFS"), { code: "EROFS" })
    })
    expect(await call("DELETE", "/sandboxes/dev")).toMatchObject({ status: 503 })
    expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ status: "destroying" })
    isRefused = false
    tryAgain()
    await until("it is gone", async () => (await records()).length === 0)
    expect((await call("GET", "/sandboxes/dev")).status).toBe(404)
  })
})

describe("a destroy wins over", () => {
  /** Holds a call to the host up; from then on no guest answers before its channel closes. */
  function hold(step: "start" | "begin"): { reached: Promise<void>; go(): void } {
    const reached = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    const part = (step === "begin" ? host.templates : host.machines) as unknown as Record<string, unknown>
    const real = part[step] as (...parameters: unknown[]) => Promise<never>
    host.opened = (guest) => {
      const never = () => guest.closed.then(() => Promise.reject(new Error("the channel was closed")))
      return answering(Object.assign(guest, { waitReady: never }), { personalise: never, refresh: never })
    }
    part[step] = async (...parameters: unknown[]) => {
      reached.resolve()
      await gate.promise
      return real.apply(part, parameters)
    }
    return { reached: reached.promise, go: gate.resolve }
  }

  const stopped = async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    await call("POST", "/sandboxes/dev/stop")
  }
  const starts: Record<string, { prepare(): Promise<unknown>; path: string }> = {
    "a create": {
      prepare: async () => {
        await call("POST", "/sandboxes", { body: { name: "dev" } })
        await call("DELETE", "/sandboxes/dev")
      },
      path: "/sandboxes",
    },
    "a wake from memory": { prepare: stopped, path: "/sandboxes/dev/start" },
    "a wake from disk": {
      prepare: async () => {
        await stopped()
        host.memories.clear()
      },
      path: "/sandboxes/dev/start",
    },
  }
  test.each(Object.entries(starts))("%s whose machine is not there yet", async (_what, { prepare, path }) => {
    await prepare()
    const { reached, go } = hold("start")
    const starting = call("POST", path, { body: path === "/sandboxes" ? { name: "dev" } : {} })
    await reached
    const destroying = call("DELETE", "/sandboxes/dev")
    await until("it is to be destroyed", async () => {
      const record = (await core.store.sandboxes.listOnHost())[0]
      return record !== undefined && core.destroying.has(record.id)
    })
    go()
    expect((await destroying).status).toBe(200)
    expect(await starting).toMatchObject({ status: 409, body: { code: "conflict" } })
    expect([host.running.size, host.directories.size, await core.store.sandboxes.listOnHost()]).toEqual([
      0,
      0,
      [],
    ])
  })

  test("a create that waits for a template", async () => {
    const { reached, go } = hold("begin")
    const creating = call("POST", "/sandboxes", { body: { name: "dev" } })
    await reached
    expect((await call("DELETE", "/sandboxes/dev")).status).toBe(200)
    expect(await creating).toMatchObject({ status: 409, body: { code: "conflict" } })
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
    go()
  })
})

describe("who may", () => {
  test("the scheme's case does not matter", async () => {
    for (const scheme of ["Bearer", "bearer", "BEARER"])
      expect(
        await call("GET", "/sandboxes", { headers: { authorization: `${scheme} ${alice}` } }),
      ).toMatchObject({ status: 200 })
  })

  test("every endpoint but the public ones refuses a missing, malformed or wrong key alike", async () => {
    const wrong = [
      "",
      "Bearer nonsense",
      `Bearer bht_${"0".repeat(64)}`,
      `bearer ${alice}x`,
      `Basic ${alice}`,
    ]
    for (const request of sampleRequests("dev")) {
      if (request.isPublic) continue
      const { name, method, path, body, messages } = request
      for (const authorization of wrong) {
        const answer = await call(method, path, {
          headers: { authorization },
          ...(body !== undefined && { body }),
        })
        expect([name, answer.status]).toEqual([name, 401])
        if (messages)
          expect(await askSocket(served.url, request, { authorization })).toMatchObject({
            isOpened: false,
          })
      }
    }
  })

  test("a key in the query string opens nothing", async () => {
    const answer = await call("GET", `/sandboxes?token=${alice}&key=${alice}`, {
      headers: { authorization: "" },
    })
    expect(answer.status).toBe(401)
  })

  test.each(["//sandboxes", "/./sandboxes", "/health/../sandboxes", "/%73andboxes", "/sandboxes/"])(
    "the path %s is no way around the key",
    async (path) => {
      const answer = await call("GET", path, { headers: { authorization: "" } })
      expect([401, 404]).toContain(answer.status)
    },
  )

  test("another user's sandbox does not exist, on every endpoint", async () => {
    const { body } = await call("POST", "/sandboxes", { body: { name: "dev" } })
    const { id } = Sandbox.parse(body)
    for (const request of [...sampleRequests("dev"), ...sampleRequests(id)]) {
      if (!request.isOfSandbox) continue
      const { name, method, path, body, messages } = request
      if (messages) {
        const { message } = await askSocket(served.url, request, { authorization: `Bearer ${bob}` })
        expect([name, message]).toMatchObject([name, { type: "error", code: "not_found" }])
        expect(JSON.stringify(message)).not.toContain("alice")
        continue
      }
      for (const accept of ["*/*", ...(request.streamType ? [request.streamType] : [])]) {
        const headers = { accept }
        const answer = await call(method, path, { key: bob, headers, ...(body !== undefined && { body }) })
        expect([name, answer.status]).toEqual([name, 404])
        expect(JSON.stringify(answer.body)).not.toContain("alice")
      }
    }
    expect((await call("POST", "/sandboxes", { key: bob, body: { name: "copy", from: id } })).status).toBe(
      404,
    )
    expect(await core.store.sandboxes.listOnHost()).toHaveLength(1)
    expect((await call("GET", "/sandboxes", { key: bob })).body).toEqual([])
    expect(await call("POST", "/sandboxes", { key: bob, body: { name: "dev" } })).toMatchObject({
      status: 201,
    })
  })

  test("nothing of another user is in any answer, nor changed by any request", async () => {
    const made = await call("POST", "/sandboxes", { body: { name: "alices-box" } })
    const { id } = Sandbox.parse(made.body)
    await call("POST", "/sandboxes/alices-box/publish", { body: { port: 3000, alias: "alices-port" } })
    await call("POST", "/secrets", { body: { name: "A", value: "alices-value" } })
    expect((await call("POST", `/sandboxes/${id}/checkpoint`, { body: { name: "A" } })).status).toBe(201)
    const mine = async () =>
      Promise.all(
        ["/sandboxes", "/snapshots", "/secrets", `/sandboxes/${id}/publish`].map(
          async (path) => (await call("GET", path)).body,
        ),
      )
    const before = await mine()
    const [snapshot] = before[1] as { id: string }[]

    for (const { name, method, path, body, isPublic, isOfSandbox } of sampleRequests("x")) {
      if (isPublic || isOfSandbox) continue
      const answer = await call(method, path, { key: bob, ...(body !== undefined && { body }) })
      expect([name, answer.status < 500]).toEqual([name, true])
      for (const mark of ["alice", id, `${snapshot?.id}`])
        expect([name, JSON.stringify(answer.body)]).not.toEqual([name, expect.stringContaining(mark)])
    }
    expect(await mine()).toEqual(before)
  })

  test("a rotated key is worthless at once", async () => {
    const { key } = await core.store.users.rotateKey("alice")
    expect((await call("GET", "/sandboxes")).status).toBe(401)
    expect((await call("GET", "/sandboxes", { key })).status).toBe(200)
  })
})

describe("exec", () => {
  beforeEach(async () => {
    await call("POST", "/sandboxes", { body: { name: "dev", env: { FROM: "sandbox", BOTH: "sandbox" } } })
  })

  test("buffered: output apart, exit code, environment in layers, input", async () => {
    expect((await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["warn"] } })).body).toEqual({
      exit_code: 0,
      signal: null,
      timed_out: false,
      reason: "exited",
      by: null,
      detail: null,
      stdout: "out\n",
      stderr: "err\n",
      truncated: false,
    })
    expect((await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["exit", "7"] } })).body).toMatchObject({
      exit_code: 7,
    })
    const env = await call("POST", "/sandboxes/dev/exec", {
      body: { cmd: ["env"], env: { BOTH: "command" } },
    })
    expect(env.body).toMatchObject({ stdout: "FROM=sandbox\nBOTH=command\n" })
    const cat = await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["cat"], stdin: "hi" } })
    expect(cat.body).toMatchObject({ stdout: "hi" })
  })

  test("buffered output is cut at its bound and says so", async () => {
    const bytes = limits.execBufferedBytesMax + 100_000
    const { body } = await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["flood", `${bytes}`] } })
    const result = body as { stdout: string; truncated: boolean }
    expect(result.truncated).toBe(true)
    expect(result.stdout.length).toBe(limits.execBufferedBytesMax)
  })

  test("as events: the answer begins when the command runs, before it prints anything", async () => {
    const response = await fetch(new URL("/sandboxes/dev/exec", served.url), {
      method: "POST",
      headers: {
        authorization: `Bearer ${alice}`,
        "content-type": "application/json",
        accept: "application/x-ndjson",
      },
      body: JSON.stringify({ cmd: ["sleep"], timeout_sec: 60 }),
      signal: AbortSignal.timeout(5000),
    })
    expect(response.status).toBe(200)
    expect(host.ongoing.commands).toBe(1)
    await response.body?.cancel()
    await until("the command is killed", () => host.ongoing.commands === 0)
  })

  test("as events: what is wrong before the command runs has its status, a command that cannot run is an event", async () => {
    const ask = (sandbox: string, cmd: string[]) =>
      fetch(new URL(`/sandboxes/${sandbox}/exec`, served.url), {
        method: "POST",
        headers: {
          authorization: `Bearer ${alice}`,
          "content-type": "application/json",
          accept: "application/x-ndjson",
        },
        body: JSON.stringify({ cmd }),
      })
    expect((await ask("nosuch", ["true"])).status).toBe(404)
    expect((await ask("dev", [])).status).toBe(400)
    const missing = await ask("dev", ["nonsense"])
    expect(missing.status).toBe(200)
    expect(JSON.parse(await missing.text())).toMatchObject({
      type: "error",
      code: "command_not_found",
      reason: "no_program",
    })
    const buffered = await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["nonsense"] } })
    expect(buffered).toMatchObject({ status: 400, body: { code: "command_not_found", reason: "no_program" } })
  })

  test("as events: every line is JSON, the last one is the exit", async () => {
    const response = await fetch(new URL("/sandboxes/dev/exec", served.url), {
      method: "POST",
      headers: {
        authorization: `Bearer ${alice}`,
        "content-type": "application/json",
        accept: "application/x-ndjson",
      },
      body: JSON.stringify({ cmd: ["warn"] }),
    })
    expect(response.headers.get("content-type")).toBe("application/x-ndjson")
    const lines = (await response.text())
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(lines).toEqual([
      { type: "stdout", data: "out\n" },
      { type: "stderr", data: "err\n" },
      {
        type: "exit",
        exit_code: 0,
        signal: null,
        timed_out: false,
        reason: "exited",
        by: null,
        detail: null,
      },
    ])
  })

  test("a time limit ends the command and is told", async () => {
    const { body } = await call("POST", "/sandboxes/dev/exec", {
      body: { cmd: ["sleep"], timeout_sec: 0.05 },
    })
    expect(body).toMatchObject({ timed_out: true, signal: "KILL", exit_code: 137 })
  })

  test.each([
    ["no command", {}],
    ["an empty command", { cmd: [] }],
    ["an empty program", { cmd: [""] }],
    ["a NUL", { cmd: ["a\0b"] }],
    ["a time limit of zero", { cmd: ["true"], timeout_sec: 0 }],
    ["a negative time limit", { cmd: ["true"], timeout_sec: -5 }],
    ["a huge time limit", { cmd: ["true"], timeout_sec: 1e12 }],
  ])("%s is refused", async (_what, body) => {
    expect((await call("POST", "/sandboxes/dev/exec", { body })).status).toBe(400)
  })

  test("over a WebSocket: input, acknowledgements, output, exit", async () => {
    const socket = new WebSocket(new URL("/sandboxes/dev/exec/ws", served.url).href.replace("http", "ws"), {
      headers: { authorization: `Bearer ${alice}` },
    } as never)
    socket.binaryType = "arraybuffer"
    const texts: Record<string, unknown>[] = []
    let output = ""
    const closed = Promise.withResolvers<void>()
    socket.onopen = () => {
      socket.send(JSON.stringify({ cmd: ["cat"], stdin: true, window: 65_536 }))
      socket.send(Buffer.from("hello"))
      socket.send(JSON.stringify({ type: "stdin_end" }))
    }
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") texts.push(JSON.parse(data))
      else {
        const bytes = new Uint8Array(data)
        expect(bytes[0]).toBe(1)
        output += Buffer.from(bytes.subarray(1)).toString()
      }
    }
    socket.onclose = () => closed.resolve()
    await closed.promise
    expect(output).toBe("hello")
    expect(texts).toContainEqual({ type: "ack", bytes: 5 })
    expect(texts.at(-1)).toEqual({
      type: "exit",
      exit_code: 0,
      signal: null,
      timed_out: false,
      reason: "exited",
      by: null,
      detail: null,
    })
  })

  test("over a WebSocket the server never runs ahead of the acknowledgements", async () => {
    const socket = new WebSocket(new URL("/sandboxes/dev/exec/ws", served.url).href.replace("http", "ws"), {
      headers: { authorization: `Bearer ${alice}` },
    } as never)
    socket.binaryType = "arraybuffer"
    const window = 65_536
    let unacknowledged = 0
    let most = 0
    let total = 0
    const closed = Promise.withResolvers<void>()
    socket.onopen = () => socket.send(JSON.stringify({ cmd: ["flood", "2000000"], window }))
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") return
      unacknowledged += data.byteLength - 1
      total += data.byteLength - 1
      most = Math.max(most, unacknowledged)
      if (unacknowledged < window) return
      socket.send(JSON.stringify({ type: "ack", bytes: unacknowledged }))
      unacknowledged = 0
    }
    socket.onclose = () => closed.resolve()
    await closed.promise
    expect(total).toBe(2_000_000)
    expect(most).toBeLessThan(window + 32_768)
  })
})

describe("requests", () => {
  test("what is not JSON, too large, or nowhere gets the error shape", async () => {
    const notJson = await call("POST", "/sandboxes", { body: "{" })
    expect(notJson.status).toBe(400)
    const large = await call("POST", "/sandboxes", {
      body: `{"name":"${"a".repeat(limits.requestBodyBytesMax)}"}`,
    })
    expect(large.status).toBe(413)
    const nowhere = await call("GET", "/nowhere")
    expect(nowhere.status).toBe(404)
    for (const { body } of [notJson, large, nowhere]) ErrorBody.parse(body)
  })

  test("a body without end is refused at its bound", async () => {
    let sent = 0
    const piece = new TextEncoder().encode(" ".repeat(65_536))
    const body = new ReadableStream({
      pull(controller) {
        sent += piece.length
        controller.enqueue(piece)
      },
    })
    const answer = await fetch(`${served.url}/sandboxes`, {
      method: "POST",
      headers: { authorization: `Bearer ${alice}` },
      body,
    })
    expect(answer.status).toBe(413)
    // And what was on the way.
    expect(sent).toBeLessThan(32 * limits.requestBodyBytesMax)
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
  })

  test("labels select, all of them; what cannot be a filter is refused, not ignored", async () => {
    await call("POST", "/sandboxes", { body: { name: "one", labels: { team: "web", tier: "1" } } })
    await call("POST", "/sandboxes", { body: { name: "two", labels: { team: "web" } } })
    const list = async (query: string) =>
      ((await call("GET", `/sandboxes${query}`)).body as { name: string }[]).map(({ name }) => name)
    expect(await list("?label=team=web")).toEqual(["one", "two"])
    expect(await list("?label=team=web&label=tier=1")).toEqual(["one"])
    expect(await list("?label=team=web&label=tier=2")).toEqual([])
    expect(await list("?label=team=")).toEqual([])
    for (const query of ["?label=team", "?label=", "?label==web", "?labels=team=web", "?name=one"])
      expect([query, (await call("GET", `/sandboxes${query}`)).status]).toEqual([query, 400])
    expect((await call("GET", "/events?limit=1&limit=2")).status).toBe(400)
  })

  test("a parameter that an endpoint does not know is refused by each of them, and nothing happens", async () => {
    const made = Sandbox.parse((await call("POST", "/sandboxes", { body: { name: "dev" } })).body)
    for (const { method, path, body } of sampleRequests(made.id)) {
      const asked = `${path}${path.includes("?") ? "&" : "?"}foroce=true`
      const response = await fetch(served.url + asked, {
        method,
        headers: { authorization: `Bearer ${alice}` },
        ...(body !== undefined && { body }),
      })
      expect([asked, response.status]).toEqual([asked, 400])
      expect(await response.text()).toContain("foroce")
    }
    expect((await call("GET", "/sandboxes")).body).toMatchObject([{ id: made.id, status: "running" }])
  })

  test("what looks like SQL is a name that nothing has", async () => {
    await call("POST", "/sandboxes", { body: { name: "dev", labels: { team: "web" } } })
    await call("POST", "/secrets", { body: { name: "A", value: "b" } })
    const before = (await call("GET", "/sandboxes")).body
    for (const odd of [
      "' OR '1'='1",
      "dev' --",
      "dev'; DROP TABLE sandboxes; --",
      "%",
      "d_v",
      "de*",
      "\\",
      '"',
    ]) {
      const name = encodeURIComponent(odd)
      for (const path of [`/sandboxes/${name}`, `/snapshots/${name}`, `/events?sandbox=${name}`])
        expect([path, (await call("GET", path)).status]).toEqual([path, 404])
      for (const path of [`/sandboxes/${name}`, `/snapshots/${name}`, `/secrets/${name}`])
        expect([path, (await call("DELETE", path)).status]).toEqual([path, 404])
      const path = `/sandboxes?label=team=${name}`
      expect([path, (await call("GET", path)).body]).toEqual([path, []])
      for (const path of [`/sandboxes?label=${name}`, `/events?type=${name}`]) {
        const { status, body } = await call("GET", path)
        expect([path, status === 400 || Bun.deepEquals(body, [])]).toEqual([path, true])
      }
      const wrongKey = await call("GET", "/sandboxes", { key: `bht_${name}` })
      expect([odd, wrongKey.status]).toEqual([odd, 401])
    }
    expect((await call("GET", "/sandboxes")).body).toEqual(before)
    expect((await call("GET", "/secrets")).body).toMatchObject([{ name: "A" }])
  })

  test("a good request id is kept, a bad one replaced", async () => {
    const kept = await call("GET", "/health", { headers: { "x-request-id": "abc-1" } })
    expect(kept.headers.get("x-request-id")).toBe("abc-1")
    const replaced = await call("GET", "/health", { headers: { "x-request-id": "bad id" } })
    expect(replaced.headers.get("x-request-id")).toMatch(/^req_[0-9a-f]{16}$/)
  })

  test("a bug shows its request id, not its text", async () => {
    host.machines.start = () => {
      throw new Error("secret inner words")
    }
    const answer = await call("POST", "/sandboxes", { body: { name: "dev" } })
    expect(answer.status).toBe(500)
    expect(JSON.stringify(answer.body)).not.toContain("secret inner words")
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
  })
})

describe("files", () => {
  beforeEach(async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
  })
  const raw = (method: string, path: string, body?: string) =>
    fetch(`${served.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${alice}` },
      ...(body !== undefined && { body }),
    })

  test("are written, read, described, moved and removed", async () => {
    expect((await raw("PUT", "/sandboxes/dev/files?path=/a%20b", "hello")).status).toBe(200)
    const read = await raw("GET", "/sandboxes/dev/files?path=/a%20b")
    expect(await read.text()).toBe("hello")
    expect(read.headers.get("x-file-size")).toBe("5")
    expect((await call("GET", "/sandboxes/dev/files?path=/a%20b&stat=true")).body).toMatchObject({
      size: 5,
      is_dir: false,
    })
    expect((await call("POST", "/sandboxes/dev/files/mv", { body: { from: "/a b", to: "/c" } })).status).toBe(
      200,
    )
    expect((await raw("GET", "/sandboxes/dev/files?path=/a%20b")).status).toBe(404)
    expect((await raw("DELETE", "/sandboxes/dev/files?path=/c")).status).toBe(200)
    expect((await raw("GET", "/sandboxes/dev/files?path=/c")).status).toBe(404)
  })

  test("some lines or the first bytes of one, and what it is as headers", async () => {
    await raw("PUT", "/sandboxes/dev/files?path=/x", "one\ntwo\nthree\n")
    const part = await raw("GET", "/sandboxes/dev/files?path=/x&offset=2&limit=1")
    expect([part.status, part.headers.get("x-file-size"), await part.text()]).toEqual([200, "14", "two\n"])
    const first = await raw("GET", "/sandboxes/dev/files?path=/x&offset=2&max_bytes=6")
    expect(await first.text()).toBe("two\nth")
    await until("both are closed", () => host.ongoing.downloads === 0)
    for (const wrong of ["offset=0", "limit=-1", "max_bytes=x", "offset=1.5"])
      expect((await raw("GET", `/sandboxes/dev/files?path=/x&${wrong}`)).status).toBe(400)
    const head = await raw("HEAD", "/sandboxes/dev/files?path=/x")
    expect([head.headers.get("x-file-mode"), head.headers.get("x-file-isdir")]).toEqual(["0644", "false"])
    expect((await raw("HEAD", "/sandboxes/dev/files?path=/nothing")).status).toBe(404)
  })

  const ranged = (headers: Record<string, string>, path = "/x") =>
    fetch(`${served.url}/sandboxes/dev/files?path=${path}`, {
      headers: { authorization: `Bearer ${alice}`, ...headers },
    })

  test("a range of one is answered with these bytes, and one behind its end with 416", async () => {
    await raw("PUT", "/sandboxes/dev/files?path=/x", "0123456789")
    const whole = await ranged({})
    const { headers } = whole
    expect([whole.status, headers.get("accept-ranges"), await whole.text()]).toEqual([
      200,
      "bytes",
      "0123456789",
    ])
    for (const [range, bytes, place] of [
      ["bytes=2-4", "234", "2-4"],
      ["bytes=7-", "789", "7-9"],
      ["bytes=-2", "89", "8-9"],
      ["bytes=9-100", "9", "9-9"],
      ["bytes=-100", "0123456789", "0-9"],
    ] as const) {
      const part = await ranged({ range })
      expect([part.status, part.headers.get("content-range"), part.headers.get("content-length")]).toEqual([
        206,
        `bytes ${place}/10`,
        `${bytes.length}`,
      ])
      expect([await part.text(), part.headers.get("etag")]).toEqual([bytes, headers.get("etag")])
    }
    for (const range of ["bytes=10-", "bytes=-0"]) {
      const beyond = await ranged({ range })
      expect([beyond.status, beyond.headers.get("content-range")]).toEqual([416, "bytes */10"])
      expect(ErrorBody.parse(await beyond.json()).code).toBe("invalid")
    }
    for (const range of ["bytes=0-1,3-4", "bytes=4-3", "lines=1-2"]) {
      const all = await ranged({ range })
      expect([all.status, await all.text()]).toEqual([200, "0123456789"])
    }
    await until("all are closed", () => host.ongoing.downloads === 0)
  })

  test("a range of another version than the client has is the whole file, and a known version is not sent", async () => {
    await raw("PUT", "/sandboxes/dev/files?path=/x", "0123456789")
    const etag = (await raw("HEAD", "/sandboxes/dev/files?path=/x")).headers.get("etag") ?? ""
    expect(etag).toMatch(/^"[0-9a-f-]+"$/)
    expect((await ranged({ range: "bytes=1-2", "if-range": etag })).status).toBe(206)
    const known = await ranged({ "if-none-match": `"a", W/${etag}` })
    expect([known.status, known.headers.get("etag"), await known.text()]).toEqual([304, etag, ""])
    await raw("PUT", "/sandboxes/dev/files?path=/x", "abcdefghij")
    for (const condition of [etag, "Mon, 30 Nov 2026 10:00:00 GMT"]) {
      const all = await ranged({ range: "bytes=1-2", "if-range": condition })
      expect([all.status, await all.text()]).toEqual([200, "abcdefghij"])
    }
    expect((await ranged({ "if-none-match": etag })).status).toBe(200)
    await until("all are closed", () => host.ongoing.downloads === 0)
  })

  test("a range of one that changes between two looks has bytes of a single version", async () => {
    await raw("PUT", "/sandboxes/dev/files?path=/x", "0123456789")
    let looks = 0
    host.onRead = (files) => {
      looks++
      if (looks <= 2) files.add("/x", { bytes: `abcde${looks}` })
    }
    const part = await ranged({ range: "bytes=-2" })
    expect([part.status, part.headers.get("content-range"), await part.text()]).toEqual([
      206,
      "bytes 4-5/6",
      "e2",
    ])
  })

  test("extended attributes are written with it, changed and read; values may be any bytes", async () => {
    const value = encodeURIComponent("user.mime=text/plain=x")
    const more = encodeURIComponent("user.bytes=base64:AP8=")
    const path = `/sandboxes/dev/files?path=/x&attribute=${value}&attribute=${more}`
    expect((await raw("PUT", path, "hello")).status).toBe(200)
    const stat = async () => (await call("GET", "/sandboxes/dev/files?path=/x&stat=true")).body
    expect(await stat()).toMatchObject({
      attributes: { "user.mime": "text/plain=x", "user.bytes": "base64:AP8=" },
    })
    const change = { path: "/x", set: { "user.mime": "base64:YmFzZTY0Og==" }, remove: ["user.bytes"] }
    const changed = await call("PATCH", "/sandboxes/dev/files/attributes", { body: change })
    // It begins like an encoded value, so it is encoded.
    expect(changed.body).toMatchObject({ attributes: { "user.mime": "base64:YmFzZTY0Og==" } })
    expect(await stat()).toEqual(changed.body)
    for (const wrong of ["mime=x", "user.=x", "trusted.a=x", "user.a", "user.a=base64:?"])
      expect((await raw("PUT", `/sandboxes/dev/files?path=/y&attribute=${wrong}`, "x")).status).toBe(400)
    expect((await raw("GET", "/sandboxes/dev/files?path=/y")).status).toBe(404)
  })

  test("an agent that knows no attributes is told before anything is written", async () => {
    for (const guest of core.guests.values())
      answering(guest, {
        setAttributes: () => {
          throw new AppError("unavailable", 'this agent has no operation "file_attributes"')
        },
      })
    const answer = await raw("PUT", "/sandboxes/dev/files?path=/x&attribute=user.a%3Db", "hello")
    expect([answer.status, await answer.json()]).toMatchObject([
      503,
      { hint: expect.stringContaining("restarted") },
    ])
    expect((await raw("GET", "/sandboxes/dev/files?path=/x")).status).toBe(404)
  })

  test("one that is asked for with HEAD, or whose reader leaves, is not read on in the guest", async () => {
    await raw("PUT", "/sandboxes/dev/files?path=/x", "hello")
    host.download = async function* () {
      yield new Uint8Array(65_536)
      await new Promise(() => undefined)
    }
    const head = await raw("HEAD", "/sandboxes/dev/files?path=/x")
    expect([head.status, head.headers.get("x-file-size"), await head.text()]).toEqual([200, "5", ""])
    await until("it is closed", () => host.ongoing.downloads === 0)
    const read = await raw("GET", "/sandboxes/dev/files?path=/x")
    expect(host.ongoing.downloads).toBe(1)
    await read.body?.cancel()
    await until("it is closed", () => host.ongoing.downloads === 0)
  })

  test("an empty file stays empty", async () => {
    expect((await raw("PUT", "/sandboxes/dev/files?path=/empty", "")).status).toBe(200)
    const read = await raw("GET", "/sandboxes/dev/files?path=/empty")
    expect([read.status, await read.text()]).toEqual([200, ""])
  })

  test("one above the bound is refused before it is sent", async () => {
    const response = await fetch(`${served.url}/sandboxes/dev/files?path=/big`, {
      method: "PUT",
      headers: { authorization: `Bearer ${alice}` },
      body: new Uint8Array(limits.fileBytesMax + 1),
    })
    expect(response.status).toBe(413)
    expect((await raw("GET", "/sandboxes/dev/files?path=/big")).status).toBe(404)
    // A hundred megabytes take a busy host its time.
  }, 30_000)

  test("a listing that was cut says so", async () => {
    for (const name of ["a", "b", "c"]) await raw("PUT", `/sandboxes/dev/files?path=/d/${name}`, name)
    const whole = await call("GET", "/sandboxes/dev/files?path=/d&ls=true")
    expect([whole.body, whole.headers.get(truncatedHeader)]).toMatchObject([[{}, {}, {}], null])
    host.listedMax = 2
    const cut = await call("GET", "/sandboxes/dev/files?path=/d&ls=true")
    expect([cut.body, cut.headers.get(truncatedHeader)]).toMatchObject([[{}, {}], "true"])
  })

  test("a part of a file, or one that is packed, is not taken for the file", async () => {
    for (const [name, value] of [
      ["content-range", "bytes 0-1/2"],
      ["content-encoding", "gzip"],
    ] as const) {
      const response = await fetch(`${served.url}/sandboxes/dev/files?path=/part`, {
        method: "PUT",
        headers: { authorization: `Bearer ${alice}`, [name]: value },
        body: "xx",
      })
      expect([response.status, ErrorBody.parse(await response.json()).code]).toEqual([400, "invalid"])
    }
    expect((await raw("GET", "/sandboxes/dev/files?path=/part")).status).toBe(404)
  })

  test("an upload that breaks off is no internal error, and writes nothing", async () => {
    const errors: string[] = []
    core.log.error = (_fields, message) => errors.push(message)
    const leaving = new AbortController()
    const body = new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(1024)) })
    const upload = fetch(`${served.url}/sandboxes/dev/files?path=/half`, {
      method: "PUT",
      headers: { authorization: `Bearer ${alice}` },
      body,
      signal: leaving.signal,
    })
    await until("the upload runs", () => host.ongoing.uploads === 1)
    leaving.abort()
    await expect(upload).rejects.toThrow()
    await until("the upload is given up", () => host.ongoing.uploads === 0)
    expect((await raw("GET", "/sandboxes/dev/files?path=/half")).status).toBe(404)
    expect(errors).toEqual([])
  })

  test("a path is needed", async () => {
    expect((await raw("GET", "/sandboxes/dev/files")).status).toBe(400)
  })
})

describe("secrets", () => {
  const canary = "canary-value-1234567890"

  test("are set, listed by name only, deleted, and are their owner's alone", async () => {
    expect((await call("POST", "/secrets", { body: { name: "KEY", value: canary } })).status).toBe(201)
    const listed = await call("GET", "/secrets")
    expect(listed.body).toMatchObject([{ name: "KEY" }])
    expect(JSON.stringify(listed.body)).not.toContain(canary)
    expect((await call("GET", "/secrets", { key: bob })).body).toEqual([])
    expect((await call("DELETE", "/secrets/KEY", { key: bob })).status).toBe(404)
    expect((await call("DELETE", "/secrets/KEY")).status).toBe(200)
    expect((await call("DELETE", "/secrets/KEY")).status).toBe(404)
  })

  test("reach only the sandbox that was created with them, and no listing", async () => {
    await call("POST", "/secrets", { body: { name: "KEY", value: canary } })
    const made = await call("POST", "/sandboxes", { body: { name: "with", secrets: ["KEY"] } })
    expect(JSON.stringify(made.body)).not.toContain(canary)
    await call("POST", "/sandboxes", { body: { name: "without" } })
    const env = async (name: string) =>
      (await call("POST", `/sandboxes/${name}/exec`, { body: { cmd: ["env"] } })).body
    expect(await env("with")).toMatchObject({ stdout: `KEY=${canary}\n` })
    expect(await env("without")).toMatchObject({ stdout: "" })
    expect(JSON.stringify(await core.store.sandboxes.listOnHost())).not.toContain(canary)
  })

  test("one that does not exist fails the create, which leaves nothing", async () => {
    expect((await call("POST", "/sandboxes", { body: { secrets: ["NOPE"] } })).status).toBe(404)
    expect((await call("POST", "/secrets", { key: bob, body: { name: "BOBS", value: "x" } })).status).toBe(
      201,
    )
    expect((await call("POST", "/sandboxes", { body: { secrets: ["BOBS"] } })).status).toBe(404)
    expect(await core.store.sandboxes.listOnHost()).toEqual([])
  })
})

describe("published ports", () => {
  beforeEach(async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
  })

  test("get a URL nobody guesses, or the alias that was asked for", async () => {
    const first = await call("POST", "/sandboxes/dev/publish", { body: { port: 3000 } })
    expect(first.status).toBe(201)
    expect((first.body as { url: string }).url).toMatch(/^http:\/\/dev-[a-z0-9]{10}\.localhost:8080\/$/)
    expect(await call("POST", "/sandboxes/dev/publish", { body: { port: 3000 } })).toMatchObject({
      status: 200,
      body: first.body,
    })
    const second = await call("POST", "/sandboxes/dev/publish", { body: { port: 3001, alias: "my-app" } })
    expect(second.body).toMatchObject({ url: "http://my-app.localhost:8080/" })
    expect((await call("GET", "/sandboxes")).body).toMatchObject([
      { urls: [(first.body as { url: string }).url, "http://my-app.localhost:8080/"] },
    ])
    expect((await call("DELETE", "/sandboxes/dev/publish/3000")).status).toBe(204)
    expect((await call("DELETE", "/sandboxes/dev/publish/3000")).status).toBe(404)
  })

  test.each(["www", "api", "-a", "a-", "A", "a_b", "a.b", "", "a".repeat(64)])(
    "the alias %p is refused",
    async (alias) => {
      expect((await call("POST", "/sandboxes/dev/publish", { body: { port: 3000, alias } })).status).toBe(400)
    },
  )

  const publish = (body: { port: number; alias?: string }, sandbox = "dev") =>
    call("POST", `/sandboxes/${sandbox}/publish`, { body })
  const urls = async () => ((await call("GET", "/sandboxes/dev")).body as { urls: string[] }).urls
  const urlOf = (alias: string) => `http://${alias}.localhost:8080/`

  test("a port may have several aliases, and publishing again what is published gives what there is", async () => {
    const generated = (await publish({ port: 3000 })).body as { url: string }
    const mine = await publish({ port: 3000, alias: "my-app" })
    expect(mine).toMatchObject({ status: 201, body: { port: 3000, url: urlOf("my-app") } })
    expect(await publish({ port: 3000, alias: "my-app" })).toMatchObject({ status: 200, body: mine.body })
    expect(await publish({ port: 3000 })).toMatchObject({ status: 200, body: generated })
    expect(await urls()).toEqual([generated.url, urlOf("my-app")])
    expect((await call("GET", "/sandboxes/dev/publish")).body).toMatchObject([generated, mine.body as object])
    const events = (await call("GET", "/events?type=publish")).body as { type: string }[]
    expect(events.map(({ type }) => type)).toEqual(["publish.created", "publish.created"])
  })

  test("one alias of a port is taken away, or all of them", async () => {
    for (const alias of ["one", "two", "three"]) await publish({ port: 3000, alias })
    await publish({ port: 3001, alias: "other" })
    expect((await call("DELETE", "/sandboxes/dev/publish/3000?alias=two")).status).toBe(204)
    expect(await urls()).toEqual(["one", "three", "other"].map(urlOf))
    expect(await call("DELETE", "/sandboxes/dev/publish/3000?alias=other")).toMatchObject({
      status: 404,
      body: { message: 'port 3000 of "dev" is not published as "other"' },
    })
    expect((await call("DELETE", "/sandboxes/dev/publish/3000")).status).toBe(204)
    expect(await urls()).toEqual([urlOf("other")])
    const events = (await call("GET", "/events?type=publish.deleted")).body as { meta: { alias: string } }[]
    expect(events.map(({ meta }) => meta.alias)).toEqual(["two", "one", "three"])
  })

  test("an alias that leads to another port stays there, and the next command is said", async () => {
    await publish({ port: 3000, alias: "mine" })
    expect(await publish({ port: 3001, alias: "mine" })).toMatchObject({
      status: 409,
      body: {
        message: 'the alias "mine" leads to port 3000 of this sandbox',
        hint: "choose another one, or unpublish it from port 3000 first",
        subject: { kind: "alias", alias: "mine", port: 3000 },
      },
    })
  })

  test("many who publish one port at once without an alias get one URL", async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => publish({ port: 3000 })))
    expect(all.map(({ status }) => status).sort()).toEqual([...Array(7).fill(200), 201])
    expect(new Set(all.map(({ body }) => (body as { url: string }).url)).size).toBe(1)
  })

  test("a sandbox has a limited number of aliases, on one port or on many", async () => {
    const max = limits.publishedPortsMax
    for (let index = 0; index < max - 1; index++) await publish({ port: 3000, alias: `a${index}` })
    expect((await publish({ port: 3001 })).status).toBe(201)
    const full = { status: 429, body: { code: "limit_exceeded" } }
    expect(await publish({ port: 3000, alias: "more" })).toMatchObject(full)
    expect(await publish({ port: 3002 })).toMatchObject(full)
    expect((await publish({ port: 3000, alias: "a0" })).status).toBe(200)
    expect((await publish({ port: 3001 })).status).toBe(200)
  })

  test("an alias that is taken is a conflict, whoever has it", async () => {
    await call("POST", "/sandboxes/dev/publish", { body: { port: 3000, alias: "mine" } })
    await call("POST", "/sandboxes", { key: bob, body: { name: "dev" } })
    expect(
      (await call("POST", "/sandboxes/dev/publish", { key: bob, body: { port: 1, alias: "mine" } })).status,
    ).toBe(409)
    await call("DELETE", "/sandboxes/dev")
    expect(
      (await call("POST", "/sandboxes/dev/publish", { key: bob, body: { port: 1, alias: "mine" } })).status,
    ).toBe(201)
  })
})

describe("create", () => {
  test("if_not_exists gives the one that another request has just made, also at the limit", async () => {
    for (const name of ["one", "two"]) await call("POST", "/sandboxes", { body: { name } })
    const body = { name: "dev", if_not_exists: true }
    const all = await Promise.all(Array.from({ length: 6 }, () => call("POST", "/sandboxes", { body })))
    expect(all.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 201])
    expect(await call("POST", "/sandboxes", { body: { ...body, name: "else" } })).toMatchObject({
      status: 429,
    })
  })

  test.each([
    ["another image", { image: "docker" }],
    ["other cpus", { cpus: 2 }],
    ["other memory", { memory_mb: 256 }],
    ["another disk", { disk_size_mb: 16_384 }],
    ["an init script", { init: "true" }],
    ["files", { files: [{ guest_path: "/x", content: "" }] }],
  ])("a copy with %s is refused, with what its source has it is made", async (_what, body) => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    const refused = await call("POST", "/sandboxes", { body: { from: "dev", name: "copy", ...body } })
    expect(refused).toMatchObject({ status: 400, body: { code: "invalid" } })
    expect(await core.store.sandboxes.listOnHost()).toHaveLength(1)
    const same = { image: "workspace", cpus: 1, memory_mb: 512, disk_size_mb: 8192, warm_after: 7 }
    const copy = await call("POST", "/sandboxes", { body: { from: "dev", name: "copy", ...same } })
    expect(copy).toMatchObject({ status: 201, body: { ...same } })
  })

  test("if_not_exists gives the existing sandbox", async () => {
    const first = await call("POST", "/sandboxes", { body: { name: "dev", if_not_exists: true } })
    const second = await call("POST", "/sandboxes", { body: { name: "dev", if_not_exists: true } })
    expect([first.status, second.status]).toEqual([201, 200])
    expect(second.headers.get("x-bhatti-existing")).toBe("true")
    expect(second.body).toEqual(first.body)
  })

  test("files, labels and an init script are there when it answers", async () => {
    const content = Buffer.from("hi").toString("base64")
    const body = {
      name: "dev",
      labels: { team: "a" },
      init: "sleep 1",
      files: [{ guest_path: "/x", content }],
    }
    expect((await call("POST", "/sandboxes", { body })).body).toMatchObject({ labels: { team: "a" } })
    expect((await call("GET", "/sandboxes/dev/files?path=/x&stat=true")).body).toMatchObject({ size: 2 })
    expect((await call("GET", "/sandboxes/dev/sessions")).body).toMatchObject([
      { name: "init", running: true, attached: false },
    ])
    expect((await call("POST", "/sandboxes/dev/sessions/s1/kill", { body: {} })).status).toBe(200)
    const missing = await call("POST", "/sandboxes/dev/sessions/s7/kill", { body: {} })
    expect(missing.body).toMatchObject({ code: "not_found", subject: { kind: "session", sandbox: "dev" } })
    expect((await call("GET", "/sandboxes/dev/sessions")).body).toMatchObject([{ running: false }])
  })
})

describe("power", () => {
  const ids = () => core.store.sandboxes.listOnHost()

  beforeEach(async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
  })

  test("stop frees the machine, and any request starts it again", async () => {
    expect((await call("POST", "/sandboxes/dev/stop")).body).toMatchObject({
      status: "stopped",
      thermal: "cold",
    })
    expect(host.running.size).toBe(0)
    expect((await call("POST", "/sandboxes/dev/stop")).status).toBe(200)
    expect((await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["true"] } })).status).toBe(200)
    expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ status: "running", thermal: "hot" })
    expect(host.running.size).toBe(1)
    expect(host.memories.size).toBe(0)
  })

  test("twelve callers of a stopped sandbox wake it once", async () => {
    await call("POST", "/sandboxes/dev/stop")
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, index) =>
        index % 3 === 0
          ? call("POST", "/sandboxes/dev/start")
          : call("POST", "/sandboxes/dev/exec", { body: { cmd: ["true"] } }),
      ),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 12 }, () => 200))
    expect(host.running.size).toBe(1)
  })

  test("a stop that cannot save leaves the sandbox running and says so", async () => {
    host.failAt = "save"
    const refused = await call("POST", "/sandboxes/dev/stop")
    expect(refused.status).toBe(503)
    host.failAt = undefined
    expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ status: "running" })
    expect((await call("POST", "/sandboxes/dev/exec", { body: { cmd: ["true"] } })).status).toBe(200)
    expect(host.running.size).toBe(1)
  })

  test("without a usable snapshot it boots from its disk", async () => {
    await call("POST", "/sandboxes/dev/stop")
    host.memories.clear()
    expect((await call("POST", "/sandboxes/dev/start")).status).toBe(200)
    expect(host.running.size).toBe(1)
  })

  test("a start that fails leaves it stopped, and it can be tried again", async () => {
    await call("POST", "/sandboxes/dev/stop")
    host.failAt = "restore"
    host.memories.clear()
    host.failAt = "boot"
    expect((await call("POST", "/sandboxes/dev/start")).status).toBeGreaterThanOrEqual(500)
    expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ status: "stopped" })
    expect(host.running.size).toBe(0)
    host.failAt = undefined
    expect((await call("POST", "/sandboxes/dev/start")).status).toBe(200)
  })

  test("a stopped one can be destroyed", async () => {
    await call("POST", "/sandboxes/dev/stop")
    expect((await call("DELETE", "/sandboxes/dev")).status).toBe(200)
    expect(await ids()).toEqual([])
    expect(host.directories.size).toBe(0)
  })
})

describe("what a body may be", () => {
  const post = async (body: string | Uint8Array, type?: string) => {
    const response = await fetch(`${served.url}/secrets`, {
      method: "POST",
      headers: { authorization: `Bearer ${alice}`, ...(type !== undefined && { "content-type": type }) },
      body,
    })
    return { status: response.status, body: (await response.json()) as { message: string } }
  }
  const good = '{"name":"A","value":"b"}'

  test.each([
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON;charset=UTF-8",
    'application/json;charset="utf-8"',
    undefined,
  ])("JSON of type %p is taken", async (type) => {
    expect((await post(good, type)).status).toBe(201)
  })

  test.each([
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/json; charset=latin1",
    "application/json, text/plain",
  ])("JSON that says that it is %s is refused", async (type) => {
    expect(await post(good, type)).toMatchObject({
      status: 400,
      body: { code: "invalid", message: `the content type is "${type}", and must be application/json` },
    })
  })

  test.each([
    ["a name twice", '{"name":"A","value":"b","name":"B"}', '"name" appears twice in one object'],
    [
      "half of a character",
      '{"name":"A","value":"\\ud83d"}',
      "value: an unpaired surrogate (half of a character) is not valid text",
    ],
    [
      "bytes that are no text",
      Buffer.from('{"name":"A","value":"\xff"}', "latin1"),
      "the request's body is not UTF-8",
    ],
    ["something else", "name=A", "it is not valid JSON"],
  ])("%s is refused, says which, and changes nothing", async (_what, body, message) => {
    expect(await post(body)).toMatchObject({ status: 400, body: { code: "invalid", message } })
    expect((await call("GET", "/secrets")).body).toEqual([])
  })

  test("over a WebSocket, too", async () => {
    await call("POST", "/sandboxes", { body: { name: "dev" } })
    const [exec] = sampleRequests("dev").filter(({ name }) => name === "execSocket")
    if (!exec) throw new Error("there is no such request")
    const request = { ...exec, messages: ['{"cmd":["true"],"cmd":["false"]}'] }
    const { message } = await askSocket(served.url, request, { authorization: `Bearer ${alice}` })
    expect(message).toMatchObject({
      type: "error",
      code: "invalid",
      message: '"cmd" appears twice in one object',
    })
  })
})
