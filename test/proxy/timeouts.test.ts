/** How long the front waits for whom. The clock is brought along, so nobody waits. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { connect } from "node:net"
import { RateLimits } from "@bhatti/contract/config"
import { limits } from "@bhatti/contract/limits"
import { ConnectionLimits } from "../../src/proxy/connection-limits.ts"
import { until } from "../support/installation.ts"
import { connectRaw, get, openStage, rawServer, type Stage } from "./stage.ts"

let stage: Stage
let app: ReturnType<typeof rawServer>

beforeEach(async () => {
  stage = await openStage()
  app = rawServer((socket, received) => {
    if (received.includes("/ok")) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    if (received.includes("/half")) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok")
    if (received.includes("/tunnel"))
      socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: custom\r\nConnection: upgrade\r\n\r\nok")
  })
  await stage.publish(app.port)
})

afterEach(async () => {
  app[Symbol.dispose]()
  await stage[Symbol.asyncDispose]()
})

const laterBy = (ms: number) => stage.front.check(performance.now() + ms)

describe("clients", () => {
  test("that trickle a head are cut, however lively", async () => {
    const client = await connectRaw(stage.port, "GET / HTTP/1.1\r\nHost: app.localhost\r\n")
    // Bytes sent later are read later: once this is answered, the head has begun.
    expect((await fetch(`http://127.0.0.1:${stage.port}/health`)).status).toBe(200)
    laterBy(9000)
    client.socket.write("X: a\r\n")
    laterBy(9900)
    expect(client.isClosed()).toBe(false)
    laterBy(10_100)
    await until("it is cut", () => client.isClosed(), { deadlineMs: 2000 })
    expect(app.received).toEqual([])
  })

  test("that keep a connection and ask nothing are cut later", async () => {
    const client = await connectRaw(stage.port, get("/ok"))
    await until("it is answered", () => client.answer().endsWith("ok"))
    laterBy(60_000)
    expect(client.isClosed()).toBe(false)
    laterBy(76_000)
    await until("it is cut", () => client.isClosed(), { deadlineMs: 2000 })
  })

  // It comes back in the answer.
  const long = "a".repeat(6000)
  test.each([
    ["answers", `GET /${long} HTTP/1.1\r\nHost: localhost\r\n\r\n`, 1500],
    [
      "answers, and ask for a WebSocket",
      `GET /${long} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n`,
      1500,
    ],
    ["refusals", "GET / HTTP/1.1\r\nHost: a.b.localhost\r\n\r\n", 80_000],
  ])("that take none of their %s are cut, whatever they ask", async (_, request, count) => {
    const socket = connect({ host: "127.0.0.1", port: stage.port }, () => socket.write(request.repeat(count)))
    socket.on("error", () => undefined)
    socket.pause()
    try {
      await until("it is connected", () => stage.front.connectionCount === 1)
      let rounds = 0
      // Bytes that the kernel keeps for it count as taken, until its buffers are full.
      await until("it is cut", () => {
        laterBy(++rounds * 61_000)
        return stage.front.connectionCount === 0
      })
    } finally {
      socket.destroy()
    }
  })

  test("whose body stops coming get 408", async () => {
    const client = await connectRaw(
      stage.port,
      "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 10\r\n\r\nhalf",
    )
    await until("the application has a part", () => app.received.join("").endsWith("half"))
    laterBy(61_000)
    await until("it is refused", () => client.answer().startsWith("HTTP/1.1 408 "))
    await until("the application is free", () => app.open() === 0, { deadlineMs: 1000 })
  })
})

describe("applications", () => {
  test("that do not answer get five minutes, then their client 504", async () => {
    const client = await connectRaw(stage.port, get("/never"))
    await until("the application is asked", () => app.open() === 1)
    laterBy(290_000)
    expect(client.answer()).toBe("")
    laterBy(301_000)
    await until("it is refused", () => client.answer().startsWith("HTTP/1.1 504 "))
  })

  test("that stop in the middle of an answer are given up", async () => {
    const client = await connectRaw(stage.port, get("/half"))
    await until("the answer has begun", () => client.answer().endsWith("ok"))
    laterBy(590_000)
    expect(client.isClosed()).toBe(false)
    laterBy(601_000)
    await until("it is cut", () => client.isClosed() && app.open() === 0)
  })

  test("are not held by a connection that nobody uses", async () => {
    const client = await connectRaw(stage.port, get("/ok"))
    await until("it is answered", () => client.answer().endsWith("ok"))
    expect(app.open()).toBe(1)
    laterBy(5000)
    await until("the application is free", () => app.open() === 0, { deadlineMs: 1000 })
    expect(client.isClosed()).toBe(false)
  })

  test("may keep a silent tunnel for an hour", async () => {
    const client = await connectRaw(
      stage.port,
      get("/tunnel", { headers: ["Connection: upgrade", "Upgrade: custom"] }),
    )
    await until("the tunnel is open", () => client.answer().endsWith("ok"))
    laterBy(3_500_000)
    expect(client.isClosed()).toBe(false)
    laterBy(3_601_000)
    await until("it is cut", () => client.isClosed() && app.open() === 0)
  })
})

describe("connections", () => {
  const visitor = (isIdle: boolean) => ({ cutOff() {}, yieldUpstream: () => isIdle })

  test("of one client, and in all, have a bound; closing makes room", () => {
    const connectionLimits = new ConnectionLimits(RateLimits.parse({}))
    for (let i = 0; i < limits.proxyConnectionsPerClientMax; i++)
      expect(connectionLimits.openConnection("a")).toBe(true)
    expect(connectionLimits.openConnection("a")).toBe(false)
    for (let i = limits.proxyConnectionsPerClientMax; i < limits.proxyConnectionsMax; i++)
      expect(connectionLimits.openConnection(`${i}`)).toBe(true)
    expect(connectionLimits.openConnection("z")).toBe(false)
    connectionLimits.closeConnection("a")
    expect(connectionLimits.openConnection("a")).toBe(true)
  })

  test("into one guest have a bound; an idle one gives way", () => {
    const connectionLimits = new ConnectionLimits(RateLimits.parse({}))
    const first = visitor(false)
    connectionLimits.enter("a", first)
    for (let i = 1; i < limits.proxyConnectionsPerAliasMax; i++)
      expect(connectionLimits.enter("a", visitor(false))).toBe(true)
    expect(connectionLimits.enter("a", visitor(false))).toBe(false)
    expect(connectionLimits.enter("b", visitor(false))).toBe(true)
    connectionLimits.leave("a", first)
    expect(connectionLimits.enter("a", visitor(true))).toBe(true)
    expect(connectionLimits.enter("a", visitor(false))).toBe(true)
  })

  test("never take the streams that a guest keeps for commands", async () => {
    stage.host.openStreams = limits.publishedStreamsMax
    try {
      const client = await connectRaw(stage.port, get("/ok"))
      await until("it is turned away", () => client.answer().startsWith("HTTP/1.1 503 "))
      expect(client.answer()).toContain("Retry-After: 1")
      const exec = await fetch(`http://127.0.0.1:${stage.port}/sandboxes/dev/exec`, {
        method: "POST",
        headers: { authorization: `Bearer ${stage.key}` },
        body: '{"cmd":["true"]}',
      })
      expect(exec.status).toBe(200)
    } finally {
      stage.host.openStreams = 0
    }
    const client = await connectRaw(stage.port, get("/ok"))
    await until("it is answered at once when there is room", () =>
      client.answer().startsWith("HTTP/1.1 200 "),
    )
  })

  test("beyond the bound are told so", async () => {
    const open: Bun.Socket[] = []
    // A few at a time: the system drops what waits to be accepted beyond its own bound.
    while (open.length < limits.proxyConnectionsPerClientMax) {
      const some = Array.from({ length: 64 }, () =>
        Bun.connect({ hostname: "127.0.0.1", port: stage.port, socket: { data() {} } }),
      )
      open.push(...(await Promise.all(some)))
      await until("they are in", () => stage.front.connectionCount === open.length)
    }
    const client = await connectRaw(stage.port, get("/ok"))
    await until("it is turned away", () => client.answer().startsWith("HTTP/1.1 503 "))
    expect(client.answer()).toContain("Retry-After: 1")
    for (const socket of open) socket.terminate()
    await until("there is room again", () => stage.front.connectionCount <= 1)
    expect((await fetch(`http://127.0.0.1:${stage.port}/health`)).status).toBe(200)
  }, 30_000)
})
