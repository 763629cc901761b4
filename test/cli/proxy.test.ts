/** Proxies of the environment: never before a daemon on this host, before any other for requests and streams alike. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import { Daemon } from "./daemon.ts"
import { bhatti } from "./program.ts"

const daemon = await Daemon.start({ apiHosts: ["bhatti.localhost", "bhatti.test"] })
await daemon.sandbox("dev")

/** The first line of what each connection asked for. */
const asked: string[] = []
/** A proxy that finds the daemon under every name. */
const proxy = Bun.listen<{ onward?: Promise<Bun.Socket> }>({
  hostname: "127.0.0.1",
  port: 0,
  socket: {
    open(client) {
      client.data = {}
    },
    async data(client, bytes) {
      if (client.data.onward !== undefined) return void (await client.data.onward).write(bytes)
      const head = Buffer.from(bytes).toString("latin1")
      asked.push(head.slice(0, head.indexOf("\r\n")))
      client.data.onward = Bun.connect({
        hostname: "127.0.0.1",
        port: Number(new URL(daemon.url).port),
        socket: {
          data: (_, answer) => void client.write(answer),
          close: () => void client.end(),
        },
      })
      const onward = await client.data.onward
      if (head.startsWith("CONNECT")) client.write("HTTP/1.1 200 OK\r\n\r\n")
      else onward.write(Buffer.from(head.replace(/ http:\/\/[^/]*/, " "), "latin1"))
    },
    async close(client) {
      ;(await client.data.onward)?.end()
    },
  },
})
const proxyUrl = `http://127.0.0.1:${proxy.port}`
const variables = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"]

afterAll(() => {
  proxy.stop(true)
  return daemon[Symbol.asyncDispose]()
})
beforeEach(() => {
  asked.length = 0
})

const commands = [
  ["list", "-q"],
  ["exec", "dev", "echo", "dev"],
] as const

test("a daemon on this host is never asked through a proxy", async () => {
  const { port } = new URL(daemon.url)
  const env = Object.fromEntries(variables.map((name) => [name, proxyUrl]))
  for (const host of ["127.0.0.1", "localhost", "bhatti.localhost"])
    for (const args of commands) {
      const ran = await bhatti([...args], {
        env: { ...env, BHATTI_URL: `http://${host}:${port}`, BHATTI_TOKEN: daemon.key },
      })
      expect({ host, ...ran }).toEqual({ host, stdout: "dev\n", stderr: "", exitCode: 0 })
    }
  expect(asked).toEqual([])
})

test("a daemon elsewhere is asked through the proxy, streams too", async () => {
  const away = { BHATTI_URL: "http://bhatti.test:8080", BHATTI_TOKEN: daemon.key }
  for (const variable of ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    for (const args of commands) {
      const ran = await bhatti([...args], { env: { ...away, [variable]: proxyUrl } })
      expect({ variable, ...ran }).toEqual({ variable, stdout: "dev\n", stderr: "", exitCode: 0 })
    }
  const once = ["GET http://bhatti.test:8080/sandboxes HTTP/1.1", "CONNECT bhatti.test:8080 HTTP/1.1"]
  expect(asked).toEqual([...once, ...once, ...once])
})

test("NO_PROXY holds for both", async () => {
  const away = { BHATTI_URL: "http://bhatti.test:8080", BHATTI_TOKEN: daemon.key }
  for (const args of commands)
    await bhatti([...args], { env: { ...away, http_proxy: proxyUrl, NO_PROXY: "bhatti.test" } })
  expect(asked).toEqual([])
})
