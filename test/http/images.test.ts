/** Images, tasks and logins through the HTTP interface, with the fake host's registries. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { HostImage, Image } from "@bhatti/contract/image"
import { limits } from "@bhatti/contract/limits"
import { StartedTask, Task } from "@bhatti/contract/task"
import { pinDisk, removeUnusedDisks } from "../../src/core/image-disks.ts"
import { importImage } from "../../src/core/import-image.ts"
import { followTask, stopTasks } from "../../src/core/tasks.ts"
import { OperatorUsers } from "../../src/core/users.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

const ref = "registry.example/app:1"
let own: HttpApp
let other: string
beforeEach(async () => {
  own = await openHttpApp()
  other = (await new OperatorUsers(own.core.store).create({ name: "bob", maxDiskMib: 7 })).key
})
afterEach(() => own[Symbol.asyncDispose]())

async function start(body: Record<string, unknown> = {}, key = own.key): Promise<string> {
  const { status, body: answer } = await own.call("POST", "/images/pull", { ref, ...body }, key)
  expect([status, answer]).toMatchObject([202, { status: "running" }])
  return StartedTask.parse(answer).task_id ?? ""
}
const taskOf = async (id: string, key = own.key) =>
  Task.parse((await own.call("GET", `/tasks/${id}`, undefined, key)).body)
async function ended(id: string, key = own.key): Promise<Task> {
  await until("the task has ended", async () => (await taskOf(id, key)).completed_at !== null)
  return await taskOf(id, key)
}
const pull = async (body: Record<string, unknown> = {}, key = own.key) => ended(await start(body, key), key)
const imagesOf = async (key = own.key) =>
  Image.array()
    .parse((await own.call("GET", "/images", undefined, key)).body)
    .filter(({ id }) => id !== null)
const path = (name: string) => `/images/${encodeURIComponent(name)}`

describe("a pull", () => {
  test("is a task, and ends with an image of its caller that sandboxes can be made from", async () => {
    const task = await pull()
    expect(task).toMatchObject({ type: "image.pull", status: "done", subject: ref, result: { image: ref } })
    const [image] = await imagesOf()
    expect(image).toMatchObject({ name: ref, reference: ref, status: "ready", platform: "linux/amd64" })
    expect((await own.call("GET", path(ref))).body).toEqual(image)
    expect(await imagesOf(other)).toEqual([])
    const created = await own.call("POST", "/sandboxes", { name: "dev", image: ref })
    expect([created.status, created.body]).toMatchObject([201, { image: ref }])
    const refused = await own.call("POST", "/sandboxes", { image: ref }, other)
    expect([refused.status, refused.body]).toMatchObject([404, { subject: { kind: "image" } }])
  })

  test("by a digest that is here already answers at once, without the registry", async () => {
    const pinned = `registry.example/app@sha256:${"a".repeat(64)}`
    await pull({ ref: pinned })
    const asked = own.host.pulls.asked.length
    const { status, body } = await own.call("POST", "/images/pull", { ref: pinned })
    expect([status, body]).toEqual([
      200,
      { task_id: null, status: "exists", image: pinned, digest: `sha256:${"a".repeat(64)}` },
    ])
    expect(own.host.pulls.asked).toHaveLength(asked)
    await own.call("POST", "/images/pull", { ref: pinned }, other)
    expect(own.host.pulls.asked.length).toBeGreaterThan(asked)
  })

  test("of a tag that has moved gives the image new content, and older sandboxes keep theirs", async () => {
    await pull()
    await own.call("POST", "/sandboxes", { name: "dev", image: ref })
    const [before] = await imagesOf()
    own.host.pulls.version = "2"
    await pull()
    const [after, ...more] = await imagesOf()
    expect(more).toEqual([])
    expect(after?.id).toBe(before?.id as never)
    expect(after?.manifest_digest).not.toBe(before?.manifest_digest as never)
    const record = (await own.core.store.sandboxes.listOnHost()).find(({ name }) => name === "dev")
    expect(record?.imageHash).toBe(before?.hash as never)
  })

  test("with a name that the host has, an id, or one of the host's files is refused", async () => {
    for (const name of [
      limits.imageDefault,
      "img_0123456789abcdef",
      `oci-${"a".repeat(64)}`,
      "a b",
      "sha256:12",
    ]) {
      const { status } = await own.call("POST", "/images/pull", { ref, name })
      expect([400, 409]).toContain(status)
    }
    const { status } = await own.call("POST", "/sandboxes", { image: `oci-${"a".repeat(64)}` })
    expect(status).toBe(404)
  })

  test("of a short name says which setting is missing", async () => {
    const { status, body } = await own.call("POST", "/images/pull", { ref: "debian:12" })
    expect([status, body]).toMatchObject([400, { reason: "no_default_registry" }])
  })

  test("of which there is no image: a create lists those that its caller has", async () => {
    await pull()
    for (const image of ["debian:12", "nothing-like-it"]) {
      const { status, body } = await own.call("POST", "/sandboxes", { image })
      expect([status, body]).toMatchObject([404, { error: `no image named "${image}"` }])
      expect(body).toMatchObject({ hint: expect.stringContaining(`${ref}, ${limits.imageDefault}`) })
      const { body: others } = await own.call("POST", "/sandboxes", { image }, other)
      expect(JSON.stringify(others)).not.toContain(ref)
    }
  })

  test("that the registry refuses fails with its reason, and lists nothing", async () => {
    own.host.pulls.refusal = new AppError("forbidden", "no", { hint: "log in" })
    expect(await pull()).toMatchObject({ status: "failed", error: { code: "forbidden", hint: "log in" } })
    expect(await imagesOf()).toEqual([])
  })

  test("above the disk quota fails before anything is fetched, and so does an image that grew above it", async () => {
    own.host.pulls.layerBytes = 8 * 1024 * 1024
    expect(await pull({}, other)).toMatchObject({ status: "failed", error: { code: "limit_exceeded" } })
    expect(own.host.pulls.disks.size).toBe(0)
    own.host.pulls.layerBytes = 1024 * 1024
    expect((await pull({}, other)).status).toBe("done")
    expect(await pull({ name: "second" }, other)).toMatchObject({ error: { code: "limit_exceeded" } })
    expect(await imagesOf(other)).toHaveLength(1)
    const refused = await pull({ ref: "registry.example/other:1" }, other)
    expect(refused).toMatchObject({ error: { code: "limit_exceeded" } })
    expect(own.host.pulls.disks.size).toBe(1)
  })

  test("uses the credential of its request, or the stored login of that registry and user, and stores neither", async () => {
    const login = { username: "me", password: "stored-secret" }
    const stored = await own.call("POST", "/registries", { host: "Registry.Example", ...login })
    expect([stored.status, stored.body]).toMatchObject([201, { host: "registry.example", username: "me" }])
    await pull()
    await pull({ auth: "you:token:with:colons" })
    await pull({ ref: "other.example/app:1" })
    await pull({}, other)
    expect(own.host.pulls.asked.map(({ credential }) => credential)).toEqual([
      login,
      { username: "you", password: "token:with:colons" },
      undefined,
      undefined,
    ])
    const tasks = JSON.stringify((await own.call("GET", "/tasks")).body)
    expect(tasks).not.toContain("token")
    expect(JSON.stringify((await own.call("GET", "/registries")).body)).not.toContain("stored-secret")
    expect((await own.call("DELETE", "/registries/registry.example", undefined, other)).status).toBe(404)
    expect((await own.call("DELETE", "/registries/registry.example")).status).toBe(200)
  })
})

describe("a task", () => {
  test("is cancelled by its owner alone, and leaves no image", async () => {
    own.host.pulls.gate = new Promise(() => {})
    const id = await start()
    await until("it is fetching", async () => (await taskOf(id)).progress.step === "fetching")
    expect((await own.call("DELETE", `/tasks/${id}`, undefined, other)).status).toBe(404)
    expect((await own.call("GET", `/tasks/${id}`, undefined, other)).status).toBe(404)
    expect((await own.call("GET", "/tasks", undefined, other)).body).toEqual([])
    expect((await own.call("DELETE", `/tasks/${id}`)).body).toMatchObject({ status: "cancelled" })
    expect((await own.call("DELETE", `/tasks/${id}`)).body).toMatchObject({ status: "cancelled" })
    expect(await imagesOf()).toEqual([])
    expect((await taskOf(id)).completed_at).not.toBeNull()
  })

  test("that is cancelled when the image is there already ends as done", async () => {
    const { templates } = own.host
    const { begin } = templates
    const gate = Promise.withResolvers<void>()
    templates.begin = async (spec) => {
      await gate.promise
      return await begin(spec)
    }
    const id = await start()
    await until("it is preparing", async () => (await taskOf(id)).progress.step === "preparing")
    const answer = await own.call("DELETE", `/tasks/${id}`)
    gate.resolve()
    expect(answer.body).toMatchObject({ status: "done", result: { image: ref } })
    expect(await imagesOf()).toMatchObject([{ name: ref, status: "ready" }])
  })

  test("tells each change on a line, and its end on the last one", async () => {
    const gate = Promise.withResolvers<void>()
    own.host.pulls.gate = gate.promise
    const id = await start()
    const response = await fetch(`${own.url}/tasks/${id}/events`, {
      headers: { authorization: `Bearer ${own.key}` },
    })
    const tasks: Task[] = []
    const decoder = new TextDecoder()
    for await (const bytes of response.body ?? []) {
      for (const line of decoder
        .decode(bytes)
        .split("\n")
        .filter((one) => one !== ""))
        tasks.push(Task.parse(JSON.parse(line)))
      if (tasks.at(-1)?.progress.step === "fetching") gate.resolve()
    }
    expect(tasks.length).toBeGreaterThan(1)
    expect(tasks.at(-1)).toMatchObject({ status: "done", result: { image: ref } })
    expect(tasks.some(({ progress }) => progress.layers.length > 0)).toBe(true)
  })

  test("that runs when the daemon stops is interrupted, and can be asked for again", async () => {
    own.host.pulls.gate = new Promise(() => {})
    const id = await start()
    await stopTasks(own.core)
    expect(await taskOf(id)).toMatchObject({ status: "interrupted", result: null })
    own.host.pulls.gate = Promise.resolve()
    expect((await pull()).status).toBe("done")
  })
})

describe("an image", () => {
  test("is not deleted while a sandbox was made from it; others' are counted and not named", async () => {
    await pull({ name: "app" })
    const [image] = await imagesOf()
    await own.core.store.images.share(image?.id as never, ["bob"])
    await own.call("POST", "/sandboxes", { name: "dev", image: "app" })
    const theirs = await own.call("POST", "/sandboxes", { name: "hidden", image: "app" }, other)
    expect(theirs.status).toBe(201)
    const refused = await own.call("DELETE", "/images/app")
    expect(refused.status).toBe(409)
    expect(JSON.stringify(refused.body)).toContain("sandbox dev, 1 of other users")
    expect((await own.call("DELETE", "/images/app", undefined, other)).status).toBe(403)
    expect((await own.call("DELETE", `/images/${limits.imageDefault}`)).status).toBe(403)
    await own.call("DELETE", "/sandboxes/dev")
    await own.call("DELETE", "/sandboxes/hidden", undefined, other)
    expect((await own.call("DELETE", "/images/app")).body).toEqual({ status: "deleted" })
    expect((await own.call("GET", "/images/app")).status).toBe(404)
  })

  test("gets a further name, and prune removes those that nothing was made from", async () => {
    await pull({ name: "app" })
    expect((await own.call("POST", "/images/app/tag", { name: "app:stable" })).status).toBe(201)
    expect((await own.call("POST", "/images/app/tag", { name: "app:stable" })).status).toBe(409)
    expect((await own.call("POST", "/images/app/tag", { name: "x" }, other)).status).toBe(404)
    await own.call("POST", "/sandboxes", { name: "dev", image: "app:stable" })
    const pruned = await own.call("POST", "/images/prune")
    expect(pruned.body).toEqual({ deleted: ["app"], freed_mb: 5 })
    expect((await imagesOf()).map(({ name }) => name)).toEqual(["app:stable"])
  })

  test("is made of an archive that is sent", async () => {
    const response = await fetch(`${own.url}/images/import?name=mine`, {
      method: "POST",
      headers: { authorization: `Bearer ${own.key}` },
      body: "a tar",
    })
    expect(response.status).toBe(202)
    const { task_id } = StartedTask.parse(await response.json())
    expect(await ended(task_id ?? "")).toMatchObject({ type: "image.import", status: "done" })
    expect(await imagesOf()).toMatchObject([{ name: "mine", reference: null }])
  })

  test("says that it replaces the image of its name", async () => {
    const send = async () => {
      const headers = { authorization: `Bearer ${own.key}` }
      const init = { method: "POST", headers, body: "a tar" }
      const { task_id } = StartedTask.parse(
        await (await fetch(`${own.url}/images/import?name=mine`, init)).json(),
      )
      return (await ended(task_id ?? "")).result
    }
    const first = await send()
    expect(first).not.toHaveProperty("replaced")
    expect(await send()).toMatchObject({ replaced: first?.["digest"] })
  })
})

describe("an archive that is sent", () => {
  /** Answers with how much was taken of a body that never ends by itself. */
  async function send(userKey: string) {
    const { core } = own
    const account = await core.store.users.findByKey(userKey)
    if (!account) throw new Error("the key is not valid")
    let taken = 0
    async function* bytes() {
      for (; taken < 64; taken++) yield new Uint8Array(1024 * 1024)
    }
    const refused = importImage(core, account, { name: "mine", prepare: false, bytes: bytes() })
    return {
      error: await refused.then(
        () => undefined,
        (error: AppError) => error,
      ),
      taken,
    }
  }

  test("is taken up to the rest of its user's disk quota alone", async () => {
    const { error, taken } = await send(other)
    expect(error).toMatchObject({ code: "limit_exceeded" })
    expect(taken).toBe(7)
  })

  test("is refused before its first byte above the limit of running tasks, and without a rest of the quota", async () => {
    const account = await own.core.store.users.findByKey(other)
    if (!account) throw new Error("the key is not valid")
    const { tasks } = own.core.store
    const full = await tasks.add(account.id, { kind: "image.pull", subject: ref })
    await tasks.reserve(full, 7)
    expect(await send(other)).toMatchObject({ error: { code: "limit_exceeded" }, taken: 0 })
    await tasks.end(full.id, { state: "cancelled" })
    for (let count = 0; count < limits.tasksRunningMax; count++)
      await tasks.add(account.id, { kind: "image.pull", subject: ref })
    expect(await send(other)).toMatchObject({
      error: { code: "limit_exceeded", subject: { kind: "task" } },
      taken: 0,
    })
    expect(await imagesOf(other)).toEqual([])
  })
})

describe("the unpacker's limit", () => {
  const mebibyte = 1024 * 1024

  test("is an estimate of the image within its user's quota, then all that is left, and never more", async () => {
    const carol = (await new OperatorUsers(own.core.store).create({ name: "carol", maxDiskMib: 200 })).key
    own.host.pulls.layerBytes = mebibyte
    own.host.pulls.unpackedBytes = 150 * mebibyte
    expect(await pull({}, carol)).toMatchObject({ status: "done" })
    expect(own.host.pulls.limits).toEqual([68 * mebibyte, 200 * mebibyte])
    own.host.pulls.version = "2"
    own.host.pulls.unpackedBytes = 201 * mebibyte
    expect(await pull({}, carol)).toMatchObject({ status: "failed", error: { code: "limit_exceeded" } })
    // The image of that name is replaced, and its 5 MB count as free.
    expect(own.host.pulls.limits.slice(2)).toEqual([68 * mebibyte, 200 * mebibyte])
    const fresh = await pull({ name: "beside" }, carol)
    expect(fresh).toMatchObject({ status: "failed", error: { code: "limit_exceeded" } })
    expect(own.host.pulls.limits.slice(4)).toEqual([68 * mebibyte, 195 * mebibyte])
    await pull()
    expect(own.host.pulls.limits.slice(6)).toEqual([own.core.settings.images.imageMibMax * mebibyte])
  })

  test("of several at once is never more than the quota together", async () => {
    const carol = (await new OperatorUsers(own.core.store).create({ name: "carol", maxDiskMib: 150 })).key
    const gate = Promise.withResolvers<void>()
    own.host.pulls.gate = gate.promise
    own.host.pulls.layerBytes = mebibyte
    const tasks = await Promise.all([1, 2].map((tag) => start({ ref: `registry.example/app:${tag}` }, carol)))
    const used = async () => (await own.core.store.users.find("carol"))?.diskUsedMib
    await until("both have reserved", async () => (await used()) === 136)
    const third = await start({ ref: "registry.example/app:3" }, carol)
    await until("the rest is reserved", async () => (await used()) === 150)
    gate.resolve()
    for (const id of [...tasks, third]) await ended(id, carol)
    expect(own.host.pulls.limits.sort((one, other) => one - other)).toEqual(
      [14, 68, 68].map((mib) => mib * mebibyte),
    )
    expect(await used()).toBe(15)
  })

  test("holds for archives that come at once: what both have sent is never more than the quota", async () => {
    const account = await own.core.store.users.findByKey(other)
    if (!account) throw new Error("the key is not valid")
    let taken = 0
    async function* bytes() {
      for (let piece = 0; piece < 64; piece++, taken++) yield new Uint8Array(1024 * 1024)
    }
    const send = (name: string) => importImage(own.core, account, { name, prepare: false, bytes: bytes() })
    const results = await Promise.allSettled([send("one"), send("two")])
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"])
    expect(taken).toBeLessThanOrEqual(8)
    expect(await own.core.store.tasks.listOf(account.id)).toEqual([])
  })
})

describe("a disk that nothing needs when a clean-up begins", () => {
  test.each(["a pull finds", "an image of another name gets"])("stays if %s it meanwhile", async (which) => {
    const { core, host } = own
    await pull()
    const [record] = await core.store.images.listOnHost()
    if (!record) throw new Error("the pull made no image")
    await core.store.images.remove(record.id)
    const { removeUnused } = host.pulls
    using stack = new DisposableStack()
    host.pulls.removeUnused = async (isNeeded) => {
      if (which === "a pull finds") stack.use(pinDisk(core, record.diskName))
      else await core.store.images.put(record.userId, { ...record, name: "again" })
      return await removeUnused(isNeeded)
    }
    await removeUnusedDisks(core)
    expect([...host.pulls.disks.keys()]).toEqual([record.diskName])
  })
})

test("a task that no daemon's memory has is followed with pauses", async () => {
  const { core } = own
  const account = await core.store.users.findByKey(own.key)
  if (!account) throw new Error("the key is not valid")
  const { id } = await core.store.tasks.add(account.id, { kind: "image.pull", subject: ref })
  const over = new AbortController()
  let asked = 0
  const store = {
    ...core.store,
    tasks: {
      find: (...which: [typeof account.id, string]) => {
        if (++asked > 50) over.abort()
        return core.store.tasks.find(...which)
      },
    },
  } as unknown as typeof core.store
  core.clock.after(600, () => over.abort())
  const options = { signal: over.signal, quietMs: 60_000 }
  const states: string[] = []
  for await (const task of followTask({ ...core, store }, account, id, options))
    states.push(task === "quiet" ? task : task.state)
  expect(states).toEqual(["running"])
  expect(asked).toBeLessThan(10)
})

describe("an image of the host that is not installed", () => {
  const installed = async (key = own.key) => {
    const { body } = await own.call("GET", "/host-images", undefined, key)
    const all = HostImage.array().parse(body)
    return all.filter(({ is_installed }) => is_installed).map(({ name }) => name)
  }
  const ask = async (key = own.key) => {
    const { status, body } = await own.call("POST", "/host-images/docker/install", undefined, key)
    return { status, id: StartedTask.parse(body).task_id ?? "" }
  }

  test("is made once for those who ask at once, and then serves every user", async () => {
    expect(await installed()).toEqual([limits.imageDefault])
    const gate = Promise.withResolvers<void>()
    own.host.installGate = gate.promise
    const [first, second] = [await ask(), await ask(other)]
    await until("the step is told", async () =>
      (await taskOf(second.id, other)).progress.step.includes("building: install Debian"),
    )
    gate.resolve()
    expect(await ended(first.id)).toMatchObject({ type: "image.install", status: "done", subject: "docker" })
    expect(await ended(second.id, other)).toMatchObject({ status: "done" })
    expect(own.host.installs).toEqual(["docker"])
    expect(await installed(other)).toEqual([limits.imageDefault, "docker"])
    const created = await own.call("POST", "/sandboxes", { name: "theirs", image: "docker" }, other)
    expect(created.status).toBe(201)
    expect(await ask()).toEqual({ status: 200, id: "" })
    expect(own.core.hostImageBuilds.size).toBe(0)
  })

  test("is given up with the last task that waits for it, and made anew for the next", async () => {
    own.host.installGate = new Promise(() => {})
    const [first, second] = [await ask(), await ask(other)]
    await own.call("DELETE", `/tasks/${first.id}`)
    expect(await taskOf(first.id)).toMatchObject({ status: "cancelled" })
    expect(own.core.hostImageBuilds.size).toBe(1)
    await own.call("DELETE", `/tasks/${second.id}`, undefined, other)
    await until("nothing is made", () => own.core.hostImageBuilds.size === 0)
    expect(await installed()).toEqual([limits.imageDefault])
    own.host.installGate = Promise.resolve()
    expect(await ended((await ask()).id)).toMatchObject({ status: "done" })
    expect(own.host.installs).toHaveLength(2)
  })

  test("fails with its reason, and the next one who asks tries again", async () => {
    own.host.installGate = Promise.reject(new AppError("unavailable", "no packages"))
    own.host.installGate.catch(() => undefined)
    expect(await ended((await ask()).id)).toMatchObject({
      status: "failed",
      error: { message: expect.stringContaining("no packages") },
    })
    own.host.installGate = Promise.resolve()
    expect(await ended((await ask()).id)).toMatchObject({ status: "done" })
  })

  test("is the operator's to install where users may not, and an unknown one is not found", async () => {
    own.core.settings.images.areMadeAtNeed = false
    const refused = await own.call("POST", "/host-images/docker/install")
    expect([refused.status, refused.body]).toMatchObject([403, { code: "forbidden" }])
    const unknown = await own.call("POST", "/host-images/dokcer/install")
    expect([unknown.status, unknown.body]).toMatchObject([404, { hint: "did you mean docker?" }])
    expect(own.host.installs).toEqual([])
  })
})
