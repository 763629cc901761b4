/** TLS with a certificate from the configuration, and its replacement. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Server } from "bun"
import { openStage, type Stage } from "./stage.ts"

let directory: string
let stage: Stage
let app: Server<undefined>

async function makeCertificate(name: string): Promise<void> {
  const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(" ")
  const files = ["-keyout", join(directory, `${name}.key`), "-out", join(directory, `${name}.pem`)]
  const names = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost"]
  const made = Bun.spawn(["openssl", ...request, ...files, ...names], { stderr: "ignore" })
  expect(await made.exited).toBe(0)
}

function install(name: string): void {
  copyFileSync(join(directory, `${name}.pem`), join(directory, "cert.pem"))
  copyFileSync(join(directory, `${name}.key`), join(directory, "key.pem"))
}

beforeEach(async () => {
  directory = mkdtempSync("/tmp/bhatti-tls-")
  await makeCertificate("first")
  install("first")
  stage = await openStage({
    tls: { certPath: join(directory, "cert.pem"), keyPath: join(directory, "key.pem") },
  })
  app = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request, server) =>
      server.upgrade(request)
        ? undefined
        : Response.json({ proto: request.headers.get("x-forwarded-proto") }),
    websocket: { message: (socket, message) => void socket.send(message) },
  })
  await stage.publish(app.port ?? 0)
})

afterEach(async () => {
  await app.stop(true)
  await stage[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

const tls = { rejectUnauthorized: false }

/** The name in the certificate that a new connection gets. */
async function presentedName(): Promise<string> {
  const shaken = Promise.withResolvers<string>()
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: stage.port,
    tls,
    socket: {
      data() {},
      handshake: (opened) => shaken.resolve(`${opened.getPeerCertificate().subject.CN}`),
    },
  })
  const name = await shaken.promise
  socket.terminate()
  return name
}

test("published ports and the API answer over TLS, and the application is told so", async () => {
  const ask = (path: string, host: string) =>
    fetch(`https://127.0.0.1:${stage.port}${path}`, { headers: { host }, tls })
  expect(await (await ask("/", "app.localhost")).json()).toEqual({ proto: "https" })
  expect(await (await ask("/health", "localhost")).json()).toMatchObject({ status: "ok" })
})

test("a WebSocket works over TLS", async () => {
  const socket = new WebSocket(`wss://127.0.0.1:${stage.port}/`, {
    headers: { host: "app.localhost" },
    tls,
  } as never)
  const answered = Promise.withResolvers<unknown>()
  socket.onopen = () => socket.send("hello")
  socket.onmessage = ({ data }) => answered.resolve(data)
  socket.onerror = (event) => answered.reject(event)
  expect(await answered.promise).toBe("hello")
  socket.close()
})

test("a certificate that is replaced serves connections from then on; a broken one changes nothing", async () => {
  expect(await presentedName()).toBe("first")
  await makeCertificate("second")
  install("second")
  stage.front.reloadCertificate()
  expect(await presentedName()).toBe("second")
  const logged = console.error
  console.error = () => undefined
  writeFileSync(join(directory, "cert.pem"), "nonsense")
  stage.front.reloadCertificate()
  expect(await presentedName()).toBe("second")
  copyFileSync(join(directory, "first.pem"), join(directory, "cert.pem"))
  stage.front.reloadCertificate()
  console.error = logged
  expect(await presentedName()).toBe("second")
})
