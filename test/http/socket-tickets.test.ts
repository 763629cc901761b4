/** Tickets open WebSockets for clients that cannot send a key with them, and nothing else. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { ErrorBody } from "@bhatti/contract/system"
import { SocketTicket } from "@bhatti/contract/ticket"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let app: HttpApp
const logged: string[] = []
beforeAll(async () => {
  const log = (fields: object, message: string) => void logged.push(JSON.stringify({ ...fields, message }))
  app = await openHttpApp({ log: { info: log, warn: log, error: log } })
  await app.call("POST", "/sandboxes", { name: "dev" })
})
afterAll(() => app[Symbol.asyncDispose]())

async function newTicket(key = app.key): Promise<string> {
  const { status, body } = await app.call("POST", "/ws-tickets", undefined, key)
  expect(status).toBe(201)
  return SocketTicket.parse(body).ticket
}

/** The status of the handshake, and the subprotocol that the daemon has selected. */
async function open(
  protocols: string,
  { path = "/sandboxes/dev/exec/ws", ...headers }: Record<string, string> = {},
): Promise<{ status: number; protocol: string | null }> {
  const response = await fetch(app.url + path, {
    headers: {
      connection: "upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
      ...(protocols && { "sec-websocket-protocol": protocols }),
      ...headers,
    },
  })
  await response.body?.cancel()
  return { status: response.status, protocol: response.headers.get("sec-websocket-protocol") }
}

test("a ticket opens one WebSocket, as the user whose key it stands for", async () => {
  const ticket = await newTicket()
  const socket = new WebSocket(`${app.url.replace("http", "ws")}/sandboxes/dev/exec/ws`, [
    "bhatti",
    `bhatti.ticket.${ticket}`,
  ])
  const messages: unknown[] = []
  socket.onmessage = ({ data }) => void (typeof data === "string" && messages.push(JSON.parse(data)))
  socket.onopen = () => socket.send('{"cmd":["true"]}')
  await new Promise((resolve) => {
    socket.onclose = resolve
  })
  expect(socket.protocol).toBe("bhatti")
  expect(messages.at(-1)).toMatchObject({ type: "exit", exit_code: 0 })
  expect((await open(`bhatti, bhatti.ticket.${ticket}`)).status).toBe(401)
})

test("a ticket is void once its key is replaced", async () => {
  const { key } = await app.core.store.users.create({ name: "bob" })
  const ticket = await newTicket(key)
  await app.core.store.users.rotateKey("bob")
  expect((await open(`bhatti, bhatti.ticket.${ticket}`)).status).toBe(401)
  expect((await app.call("POST", "/ws-tickets", undefined, key)).status).toBe(401)
})

test("a ticket opens no other endpoint, comes from no other place, and a key is none", async () => {
  const ticket = await newTicket()
  const protocols = { "sec-websocket-protocol": `bhatti, bhatti.ticket.${ticket}` }
  expect((await fetch(`${app.url}/sandboxes`, { headers: protocols })).status).toBe(401)
  const bearer = { authorization: `Bearer ${ticket}` }
  expect((await fetch(`${app.url}/sandboxes`, { headers: bearer })).status).toBe(401)
  const path = `/sandboxes/dev/exec/ws?ticket=${ticket}`
  expect((await open("", { path })).status).toBe(401)
  expect((await open(`bhatti, ${ticket}`)).status).toBe(401)
  expect((await open(`bhatti, bhatti.ticket.${app.key}`)).status).toBe(401)
  // A wrong key is not made good by a ticket.
  const both = await open(protocols["sec-websocket-protocol"], { authorization: "Bearer bht_wrong" })
  expect(both.status).toBe(401)
})

test("a page of another site opens nothing with it", async () => {
  const ticket = await newTicket()
  const origin = "http://evil.test"
  expect((await open(`bhatti, bhatti.ticket.${ticket}`, { origin })).status).toBe(403)
})

test("tickets are in no log line and no answer but their own", async () => {
  const ticket = await newTicket()
  const refused = await app.call("GET", "/sandboxes", undefined, ticket)
  expect(ErrorBody.parse(refused.body).message).not.toContain(ticket)
  await open(`bhatti, bhatti.ticket.${ticket}`, { origin: "http://evil.test" })
  expect(logged.length).toBeGreaterThan(0)
  expect(logged.filter((line) => line.includes(ticket))).toEqual([])
})
