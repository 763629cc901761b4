/** Debian's Caddy in front, with certificates on demand from its own authority, as docs/OPERATING.md describes it. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import type { Server } from "bun"
import { until } from "../support/installation.ts"
import { openStage, type Stage } from "./stage.ts"

const caddyPath = Bun.which("caddy")
const hasCaddy = caddyPath !== null
if (!hasCaddy) console.warn("skipped: Debian's package caddy is not installed")

let directory: string
let stage: Stage
let app: Server<undefined>
let caddy: Bun.Subprocess | undefined
let httpsPort: number

beforeAll(async () => {
  if (caddyPath === null) return
  directory = mkdtempSync("/tmp/bhatti-caddy-")
  stage = await openStage({ domain: "sandboxes.test", trustedProxies: ["127.0.0.1"] })
  app = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request, server) =>
      server.upgrade(request) ? undefined : Response.json(Object.fromEntries(request.headers)),
    websocket: { message: (socket, message) => void socket.send(message) },
  })
  await stage.publish(app.port ?? 0)
  httpsPort = freePort()
  const documented = await Bun.file(join(import.meta.dir, "../../docs/Caddyfile")).text()
  const caddyfile = documented
    .replace(
      "{\n",
      `{\n\tadmin off\n\tlocal_certs\n\tskip_install_trust\n\tauto_https disable_redirects\n\thttps_port ${httpsPort}\n\thttp_port ${freePort()}\n`,
    )
    .replaceAll("127.0.0.1:8080", `127.0.0.1:${stage.port}`)
    .replaceAll("https://", `https://:${httpsPort}`)
  await Bun.write(join(directory, "Caddyfile"), caddyfile)
  caddy = Bun.spawn([caddyPath, "run", "--config", join(directory, "Caddyfile"), "--adapter", "caddyfile"], {
    env: { HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory },
    stdout: "ignore",
    stderr: Bun.file(join(directory, "log")),
  })
  await until("Caddy listens", () =>
    Bun.connect({ hostname: "127.0.0.1", port: httpsPort, socket: { data() {} } }).then(
      (socket) => {
        socket.terminate()
        return true
      },
      () => false,
    ),
  )
})

afterAll(async () => {
  if (!hasCaddy) return
  caddy?.kill()
  await caddy?.exited
  await app.stop(true)
  await stage[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  return port
}

const curl = (name: string, path: string, ...args: string[]) =>
  Bun.$`curl -sS -k --max-time 20 --connect-to ::127.0.0.1:${httpsPort} ${args} https://${name}:${httpsPort}${path}`
    .nothrow()
    .quiet()

test.skipIf(!hasCaddy)(
  "a published alias gets its certificate and is forwarded with its client's address",
  async () => {
    const { stdout, stderr } = await curl("app.sandboxes.test", "/")
    expect(stderr.toString()).toBe("")
    expect(JSON.parse(stdout.toString())).toMatchObject({
      host: `app.sandboxes.test:${httpsPort}`,
      "x-forwarded-proto": "https",
      "x-forwarded-for": "127.0.0.1, 127.0.0.1",
    })
  },
)

test.skipIf(!hasCaddy)("the API answers under the domain, between requests to applications", async () => {
  for (let round = 0; round < 3; round++) {
    expect((await curl("sandboxes.test", "/health")).stdout.toString()).toContain('"status":"ok"')
    expect((await curl("app.sandboxes.test", "/")).stdout.toString()).toContain("x-forwarded-proto")
  }
})

test.skipIf(!hasCaddy)("a name that nobody has published gets no certificate", async () => {
  expect((await curl("unknown.sandboxes.test", "/")).exitCode).toBe(35)
  expect((await curl("evil.test", "/")).exitCode).toBe(35)
})

test.skipIf(!hasCaddy)("a WebSocket goes through both", async () => {
  const socket = new WebSocket(`wss://localhost:${httpsPort}/`, {
    headers: { host: "app.sandboxes.test" },
    tls: { rejectUnauthorized: false, serverName: "app.sandboxes.test" },
  } as never)
  const answered = Promise.withResolvers<unknown>()
  socket.onopen = () => socket.send("hello")
  socket.onmessage = ({ data }) => answered.resolve(data)
  socket.onerror = (event) => answered.reject(event)
  expect(await answered.promise).toBe("hello")
  socket.close()
})
