/** Keys that may do less than their user: each endpoint with each permission, other sandboxes, and the end of a key. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { type Api, api } from "@bhatti/contract/api"
import { Event } from "@bhatti/contract/event"
import { CreatedKey, type CreateKey } from "@bhatti/contract/key"
import { type Permission, permissions } from "@bhatti/contract/permission"
import { Sandbox } from "@bhatti/contract/sandbox"
import { ErrorBody } from "@bhatti/contract/system"
import { SocketTicket } from "@bhatti/contract/ticket"
import { Keys } from "../../src/core/keys.ts"
import { endpointAccess } from "../../src/http/endpoint-access.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"
import { askSocket, sampleRequests } from "./samples.ts"

let own: HttpApp
let stopping: AbortController
let looking: Promise<void>
let dev: Sandbox

beforeAll(async () => {
  own = await openHttpApp()
  stopping = new AbortController()
  looking = own.core.keys.run(stopping.signal)
  dev = Sandbox.parse((await own.call("POST", "/sandboxes", { name: "dev" })).body)
  await own.call("POST", "/sandboxes", { name: "private" })
})
afterAll(async () => {
  stopping.abort()
  await looking
  await own[Symbol.asyncDispose]()
})

async function newKey(body: CreateKey): Promise<string> {
  return CreatedKey.parse((await own.call("POST", "/keys", body)).body).key
}

/** The permission of each endpoint, written a second time: a change of one of the two tables alone is a mistake. */
const needed: Record<keyof Api, Permission | "none" | "own key"> = {
  ...{ health: "none", version: "none", createSocketTicket: "none" },
  ...{ createKey: "own key", listKeys: "own key", revokeKey: "own key" },
  ...{ listSandboxes: "read", getSandbox: "read", whySandbox: "read", listEvents: "read" },
  ...{ listPorts: "read", listPublished: "read" },
  ...{ createSandbox: "create", createSandboxes: "create", destroySandbox: "destroy", updateSandbox: "edit" },
  ...{ stopSandbox: "power", startSandbox: "power", repairSandbox: "power", restartSandbox: "power" },
  ...{ checkpointSandbox: "snapshots", listSnapshots: "snapshots", getSnapshot: "snapshots" },
  ...{ deleteSnapshot: "snapshots", resumeSnapshot: "snapshots" },
  ...{ exec: "exec", execSocket: "exec", shellSocket: "exec", listProcesses: "exec", startProcess: "exec" },
  ...{ getProcess: "exec", deleteProcess: "exec", signalProcess: "exec", writeProcess: "exec" },
  ...{ resizeProcess: "exec", waitProcess: "exec", readProcess: "exec", processSocket: "exec" },
  ...{ listSessions: "exec", killSession: "exec", readSession: "exec", listServices: "exec" },
  controlService: "exec",
  ...{ readFile: "files", writeFile: "files", setAttributes: "files", removeFile: "files" },
  ...{ makeDirectory: "files", moveFile: "files", watchFiles: "files", createWatch: "files" },
  ...{ readWatch: "files", deleteWatch: "files", readArchive: "files", writeArchive: "files" },
  ...{ listImages: "images", pullImage: "images", importImage: "images", saveImage: "images" },
  ...{
    installHostImage: "images",
    listHostImages: "images",
    pruneImages: "images",
    buildImage: "images",
    exportImage: "images",
    pushImage: "images",
    getImage: "images",
    tagImage: "images",
    deleteImage: "images",
  },
  ...{ listTasks: "images", getTask: "images", readTask: "images", cancelTask: "images" },
  ...{ listRegistries: "secrets", logIn: "secrets", logOut: "secrets" },
  ...{ listSecrets: "secrets", setSecret: "secrets", deleteSecret: "secrets" },
  ...{ publishPort: "publish", unpublishPort: "publish" },
}

/** Reads only the head of an answer. */
async function ask(key: string, request: ReturnType<typeof sampleRequests>[number]) {
  const response = await fetch(own.url + request.path, {
    method: request.method,
    headers: { authorization: `Bearer ${key}` },
    ...(request.body !== undefined && { body: request.body }),
  })
  const refusal = response.ok ? undefined : ErrorBody.safeParse(await response.json().catch(() => null)).data
  await response.body?.cancel().catch(() => undefined)
  return { status: response.status, reason: refusal?.reason }
}
const isRefused = (answer: { status: number; reason?: string | undefined }) =>
  answer.status === 403 && answer.reason === "scope"

describe("every endpoint of the API", () => {
  // No sandbox has that name, so an allowed request finds none, or makes one of its own.
  const requests = sampleRequests("nothing").filter(({ name }) => needed[name] !== "none")

  test.each([...permissions])("with a key that can only %s", async (permission) => {
    const key = await newKey({ can: [permission] })
    const allowed: string[] = []
    for (const request of requests) if (!isRefused(await ask(key, request))) allowed.push(request.name)
    expect(allowed).toEqual(requests.flatMap(({ name }) => (needed[name] === permission ? [name] : [])))
  })

  test("with a key that can do everything, but for a new endpoint, which is for users' own keys until it is listed", async () => {
    const key = await newKey({ can: [...permissions] })
    for (const request of requests)
      expect([request.name, isRefused(await ask(key, request))]).toEqual([
        request.name,
        needed[request.name] === "own key",
      ])
    const listed = Object.keys(api).filter(
      (name) => name in endpointAccess || needed[name as keyof Api] === "own key",
    )
    expect([...listed, "health"].sort()).toEqual(Object.keys(api).sort())
  })

  test("with a key for one sandbox: what is its user's is refused, and others do not exist", async () => {
    const key = await newKey({ can: [...permissions], sandboxes: ["dev"] })
    const ofUser = new Set<keyof Api>(["listSandboxes", "listEvents"])
    for (const request of sampleRequests("private")) {
      if (needed[request.name] === "none" || ofUser.has(request.name)) continue
      const answer = await ask(key, request)
      const isOfSandbox = request.path.startsWith("/sandboxes/private") && request.name !== "saveImage"
      const isSocket = request.messages !== undefined
      if (!isOfSandbox) expect([request.name, isRefused(answer)]).toEqual([request.name, true])
      else if (!isSocket) expect([request.name, answer.status]).toEqual([request.name, 404])
      else {
        const { message } = await askSocket(own.url, request, { authorization: `Bearer ${key}` })
        expect([request.name, message]).toMatchObject([request.name, { type: "error", code: "not_found" }])
      }
    }
    // None of it has happened.
    expect((await own.call("GET", "/sandboxes/private")).body).toMatchObject({ status: "running" })
  })
})

test("a key for a sandbox sees it alone, by its id too, under another name, and in events and tickets", async () => {
  const key = await newKey({ can: ["read", "exec"], sandboxes: ["dev"] })
  const names = async () => Sandbox.array().parse((await own.call("GET", "/sandboxes", undefined, key)).body)
  expect((await names()).map(({ name }) => name)).toEqual(["dev"])
  await own.call("PATCH", "/sandboxes/dev", { name: "renamed" })
  expect((await own.call("POST", `/sandboxes/${dev.id}/exec`, { cmd: ["true"] }, key)).status).toBe(200)
  expect((await own.call("POST", "/sandboxes/renamed/exec", { cmd: ["true"] }, key)).status).toBe(200)
  await own.call("PATCH", "/sandboxes/renamed", { name: "dev" })

  await own.call("PATCH", "/sandboxes/private", { description: "x" })
  const events = Event.array().parse((await own.call("GET", "/events", undefined, key)).body)
  expect(new Set(events.map(({ sandbox_id }) => sandbox_id))).toEqual(new Set([dev.id]))
  expect((await own.call("GET", "/events?sandbox=private", undefined, key)).status).toBe(404)

  await own.call("POST", "/sandboxes", { name: "gone" })
  await own.call("DELETE", "/sandboxes/gone")
  expect((await own.call("GET", "/sandboxes/gone/why")).status).toBe(200)
  expect((await own.call("GET", "/sandboxes/gone/why", undefined, key)).status).toBe(404)

  const { ticket } = SocketTicket.parse((await own.call("POST", "/ws-tickets", undefined, key)).body)
  const socket = new WebSocket(`${own.url.replace("http", "ws")}/sandboxes/private/exec/ws`, [
    "bhatti",
    `bhatti.ticket.${ticket}`,
  ])
  const messages: Record<string, unknown>[] = []
  socket.onmessage = ({ data }) => void (typeof data === "string" && messages.push(JSON.parse(data)))
  socket.onopen = () => socket.send('{"cmd":["true"]}')
  await until("it is refused", () => messages.some(({ code }) => code === "not_found"))
})

test("another sandbox of a destroyed one's name is not the key's", async () => {
  await own.call("POST", "/sandboxes", { name: "brief" })
  const key = await newKey({ can: ["read"], sandboxes: ["brief"], name: "brief" })
  await own.call("DELETE", "/sandboxes/brief")
  await own.call("POST", "/sandboxes", { name: "brief" })
  expect((await own.call("GET", "/sandboxes/brief", undefined, key)).status).toBe(404)
  const keys = (await own.call("GET", "/keys")).body as { name: string; sandboxes: unknown }[]
  expect(keys.find(({ name }) => name === "brief")?.sandboxes).toMatchObject([{ name: null }])
})

test("a secret is given to a sandbox only with that permission", async () => {
  await own.call("POST", "/secrets", { name: "TOKEN", value: "value" })
  const key = await newKey({ can: ["create", "exec", "snapshots"] })
  const wanted = { name: "thief", secrets: ["TOKEN"] }
  expect((await own.call("POST", "/sandboxes", wanted, key)).status).toBe(403)
  expect((await own.call("POST", "/sandboxes", { ...wanted, from: "dev" }, key)).status).toBe(403)
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  expect((await own.call("POST", "/snapshots/kept/resume", wanted, key)).status).toBe(403)
  const honest = await newKey({ can: ["create", "secrets"] })
  expect((await own.call("POST", "/sandboxes", wanted, honest)).status).toBe(201)
})

test("a key that edits neither runs commands by a service nor destroys by a time to live", async () => {
  const key = await newKey({ can: ["edit"] })
  const patch = async (name: string, body: object, as = key) =>
    (await own.call("PATCH", `/sandboxes/${name}`, body, as)).status
  await own.call("POST", "/sandboxes", { name: "edited" })
  const services = { services_add: [{ name: "thief", command: "cat /etc/shadow" }] }
  expect(await patch("edited", services)).toBe(403)
  expect(await patch("edited", { services_remove: ["none"] })).toBe(403)
  expect(await patch("edited", { ttl: 3600, on_ttl: "destroy" })).toBe(403)
  expect(await patch("edited", { ttl: 3600, on_ttl: "pause" })).toBe(200)
  expect(await patch("edited", { on_ttl: "destroy" })).toBe(403)
  expect(await patch("edited", { ttl: 3600, on_ttl: "destroy" }, own.key)).toBe(200)
  expect(await patch("edited", { ttl: 1 })).toBe(403)
  expect(await patch("edited", { ttl: 7200 })).toBe(200)
  expect(await patch("edited", { ttl: 0 })).toBe(200)
  const more = await newKey({ can: ["edit", "exec", "destroy"] })
  expect(await patch("edited", services, more)).toBe(200)
  expect(await patch("edited", { ttl: 3600, on_ttl: "destroy" }, more)).toBe(200)
})

test("a key for images without the permission for files makes none of a sandbox", async () => {
  const save = async (can: Permission[], name: string) =>
    (await own.call("POST", "/sandboxes/dev/save-image", { name }, await newKey({ can }))).status
  expect(await save(["images"], "taken:1")).toBe(403)
  expect(await save(["images", "files"], "taken:2")).toBe(202)
})

test("a stored login at a registry is used only with the permission for secrets", async () => {
  const login = { host: "registry.example", username: "alice", password: "stored" }
  expect((await own.call("POST", "/registries", login)).status).toBeLessThan(300)
  const pull = async (can: Permission[], ref: string) =>
    await own.call("POST", "/images/pull", { ref }, await newKey({ can }))
  const { asked } = own.host.pulls
  const before = asked.length
  await pull(["images"], "registry.example/one:1")
  await pull(["images", "secrets"], "registry.example/two:1")
  await until("both are asked for", () => asked.length >= before + 2)
  const passwords = asked.slice(before).map(({ credential }) => credential?.password)
  expect(passwords).toEqual([undefined, "stored"])
})

test("a key that creates learns nothing of a sandbox that exists without the permission to read", async () => {
  const body = { name: "dev", if_not_exists: true }
  expect((await own.call("POST", "/sandboxes", body, await newKey({ can: ["create"] }))).status).toBe(403)
  expect((await own.call("POST", "/sandboxes", body, await newKey({ can: ["create", "read"] }))).status).toBe(
    200,
  )
})

test("a key's first request is not refused because keys are looked up meanwhile", async () => {
  const { store } = own.core
  const key = await newKey({ can: ["read"] })
  let version = 0
  const inLookup = Promise.withResolvers<void>()
  const looked = Promise.withResolvers<void>()
  const slow = {
    ...store,
    foreignVersion: async () => ++version,
    users: {
      findByKeyHash: async () => undefined,
      validHashes: store.users.validHashes.bind(store.users),
    },
    apiKeys: {
      validHashes: store.apiKeys.validHashes.bind(store.apiKeys),
      async findAccount(hash: string) {
        inLookup.resolve()
        await looked.promise
        return await store.apiKeys.findAccount(hash)
      },
    },
  } as unknown as typeof store
  const keys = new Keys(slow, { log: own.core.log, clock: own.core.clock })
  const finding = keys.find(key)
  await inLookup.promise
  await keys.look()
  looked.resolve()
  expect((await finding)?.revoked.aborted).toBe(false)
})

/** Opens what lasts, and returns the ends of it. */
async function openAll(key: string): Promise<Promise<unknown>[]> {
  const headers = { authorization: `Bearer ${key}` }
  const socket = new WebSocket(`${own.url.replace("http", "ws")}/sandboxes/dev/exec/ws`, { headers } as never)
  let isStarted = false
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["sleep"] }))
  socket.onmessage = () => {
    isStarted = true
  }
  const closed = new Promise((resolve) => {
    socket.onclose = resolve
  })
  await until("the command runs", () => isStarted)
  const exec = fetch(`${own.url}/sandboxes/dev/exec`, { method: "POST", headers, body: '{"cmd":["sleep"]}' })
  const accept = { ...headers, accept: "application/x-ndjson" }
  const events = await fetch(`${own.url}/events?follow=true`, { headers: accept })
  return [closed, exec.then((response) => expect(response.status).toBe(401)), events.text()]
}

const everything: CreateKey = { can: ["exec", "read"], sandboxes: ["dev"] }

test("a revoked key ends what is open with it within a second, and opens nothing more", async () => {
  const key = await newKey({ ...everything, name: "agent" })
  const open = await openAll(key)
  const revokedAt = performance.now()
  expect((await own.call("DELETE", "/keys/agent")).body).toEqual({ status: "revoked" })
  await Promise.all(open)
  expect(performance.now() - revokedAt).toBeLessThan(1000)
  expect((await own.call("GET", "/sandboxes/dev", undefined, key)).status).toBe(401)
  expect((await own.call("DELETE", "/keys/agent")).status).toBe(404)
})

test("so does one that expires", async () => {
  const key = await newKey({ ...everything, expires_in: 2 })
  const open = await openAll(key)
  const openedAt = performance.now()
  await Promise.all(open)
  expect(performance.now() - openedAt).toBeLessThan(3000)
  expect((await own.call("GET", "/sandboxes/dev", undefined, key)).status).toBe(401)
})

test("so do all keys of a user whose own key is rotated, or who is deleted", async () => {
  const { users } = own.core.store
  const { key: bobs } = await users.create({ name: "bob" })
  const made = async (as: string) =>
    CreatedKey.parse((await own.call("POST", "/keys", { can: ["read"] }, as)).body).key
  const one = await made(bobs)
  expect((await own.call("GET", "/sandboxes", undefined, one)).status).toBe(200)
  const { key: next } = await users.rotateKey("bob")
  expect((await own.call("GET", "/sandboxes", undefined, one)).status).toBe(401)
  const other = await made(next)
  await users.remove("bob")
  expect((await own.call("GET", "/sandboxes", undefined, other)).status).toBe(401)
})

test("a key of another user cannot be seen or revoked, and a misspelt name is told", async () => {
  await newKey({ can: ["read"], name: "dashboard" })
  const { key } = await own.core.store.users.create({ name: "carol" })
  expect((await own.call("GET", "/keys", undefined, key)).body).toEqual([])
  expect((await own.call("DELETE", "/keys/dashboard", undefined, key)).status).toBe(404)
  expect((await own.call("POST", "/keys", { can: ["read"], name: "dashboard" })).status).toBe(409)
  expect((await own.call("DELETE", "/keys/dashbord")).body).toMatchObject({ hint: "did you mean dashboard?" })
  expect((await own.call("POST", "/keys", { can: ["read"], sandboxes: ["nothing"] })).status).toBe(404)
})
