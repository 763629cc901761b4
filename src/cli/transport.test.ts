/** Which addresses are this host's own, which variable of the environment names a proxy, and hints of commands. */

import { expect, test } from "bun:test"
import { connectTo, isLoopback, socketProxy } from "./transport.ts"

test("loopback is localhost and what is below it, 127.0.0.0/8 and ::1, however it is written", () => {
  for (const host of ["localhost", "LOCALHOST", "x.localhost", "127.0.0.1", "127.9.8.7", "127.1", "[::1]"])
    expect([host, isLoopback(`http://${host}:8080/x`)]).toEqual([host, true])
  for (const host of ["example.com", "localhost.example.com", "notlocalhost", "127.0.0.1.nip.io", "10.0.0.1"])
    expect([host, isLoopback(`http://${host}:8080`)]).toEqual([host, false])
  expect(isLoopback("no address")).toBe(false)
})

test("a WebSocket's proxy is that of the scheme, or the one for all", () => {
  const http = "http://example.com"
  expect(socketProxy(http, {})).toBeUndefined()
  expect(socketProxy(http, { http_proxy: "http://a", HTTP_PROXY: "http://b" })).toBe("http://a")
  expect(socketProxy(http, { http_proxy: "", HTTP_PROXY: "b:3128", ALL_PROXY: "http://c" })).toBe(
    "http://b:3128",
  )
  expect(socketProxy(http, { HTTPS_PROXY: "http://a" })).toBeUndefined()
  expect(socketProxy("https://example.com", { HTTPS_PROXY: "http://a", HTTP_PROXY: "http://b" })).toBe(
    "http://a",
  )
  expect(socketProxy(http, { ALL_PROXY: "socks5://a" })).toBeUndefined()
  expect(socketProxy("http://localhost:8080", { http_proxy: "http://a" })).toBeUndefined()
})

test("https to a daemon that speaks http says which address is meant", async () => {
  await using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() })
  const asking = connectTo({ url: `https://127.0.0.1:${server.port}` }).health()
  expect(await asking.catch((error: unknown) => error)).toMatchObject({
    code: "unavailable",
    message: `https://127.0.0.1:${server.port} does not answer by TLS (EPROTO)`,
    hint: `a daemon without a certificate is at http://127.0.0.1:${server.port}; bhatti setup changes the address`,
  })
})
