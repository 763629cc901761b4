/** Bodies larger than memory, and sides slower than each other: what the front's process holds stays small. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../support/installation.ts"
import { get } from "./stage.ts"

const gibibyte = 1024 ** 3
const growthMibMax = 64
const chunk = new Uint8Array(1024 * 1024).fill(97)

let front: Bun.Subprocess<"ignore", "pipe", "inherit">
let port: number
let app: ReturnType<typeof byteServer>

/** Writes as much as is asked for by the path, as fast as it is taken, and counts what it gets. */
function byteServer() {
  type State = { left: number; isAsked: boolean }
  const counts = { written: 0, received: 0, open: 0 }
  const fill = (socket: Bun.Socket<State>) => {
    while (socket.data.left > 0) {
      const piece = chunk.subarray(0, Math.min(chunk.length, socket.data.left))
      const written = socket.write(piece)
      if (written <= 0) return
      socket.data.left -= written
      counts.written += written
      if (written < piece.length) return
    }
  }
  const listener = Bun.listen<State>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        counts.open++
        socket.data = { left: 0, isAsked: false }
      },
      data(socket, bytes) {
        counts.received += bytes.length
        if (socket.data.isAsked) return
        socket.data.isAsked = true
        const path = /^(GET|POST) \/(\w+)/.exec(bytes.toString("latin1"))?.[2]
        if (path === "stuck") return void socket.pause()
        const length = Number(path)
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`)
        socket.data.left = length
        fill(socket)
      },
      drain: fill,
      close() {
        counts.open--
      },
      error() {},
    },
  })
  return { port: listener.port, counts, stop: () => listener.stop(true) }
}

beforeEach(async () => {
  app = byteServer()
  front = Bun.spawn([process.execPath, join(import.meta.dir, "front-process.ts"), `${app.port}`], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  })
  const { value } = await front.stdout.getReader().read()
  port = Number(Buffer.from(value ?? "").toString())
  // The first requests load code, which must not count as a body's memory.
  await download(16 * 1024 * 1024)
})

afterEach(async () => {
  app.stop()
  front.kill()
  await front.exited
})

function residentMib(): number {
  const status = readFileSync(`/proc/${front.pid}/status`, "utf8")
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024
}

/** The largest memory while something goes on, beyond what it was before. */
async function growthMibDuring(work: () => Promise<unknown>): Promise<number> {
  const before = residentMib()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, residentMib())
  }, 20)
  try {
    await work()
  } finally {
    clearInterval(timer)
  }
  return Math.max(most, residentMib()) - before
}

async function download(bytes: number): Promise<number> {
  let received = 0
  const done = Promise.withResolvers<void>()
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(opened, piece) {
        received += piece.length
        if (received >= bytes) opened.end()
      },
      close: () => done.resolve(),
    },
  })
  socket.write(get(`/${bytes}`, { headers: ["Connection: close"] }))
  await done.promise
  return received
}

test("a gibibyte is downloaded in little memory", async () => {
  let received = 0
  const growth = await growthMibDuring(async () => {
    received = await download(gibibyte)
  })
  expect(received).toBeGreaterThan(gibibyte)
  expect(growth).toBeLessThan(growthMibMax)
}, 120_000)

test("a reader that stops makes the application wait, not the front remember", async () => {
  const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })
  const growth = await growthMibDuring(async () => {
    const before = app.counts.written
    socket.pause()
    socket.write(get(`/${gibibyte}`))
    let last = before
    await until("the application cannot write on", async () => {
      const isStill = app.counts.written > before && app.counts.written === last
      last = app.counts.written
      await Bun.sleep(200)
      return isStill && app.counts.written === last
    })
    // Sockets' own buffers, and one window.
    expect(app.counts.written - before).toBeLessThan(32 * 1024 * 1024)
  })
  expect(growth).toBeLessThan(growthMibMax)
  socket.terminate()
  await until("its leaving frees the application", () => app.counts.open === 0, { deadlineMs: 1000 })
}, 60_000)

test("an application that stops reading makes the client wait", async () => {
  let sent = 0
  const growth = await growthMibDuring(async () => {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })
    socket.write(`POST /stuck HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: ${gibibyte}\r\n\r\n`)
    let refusals = 0
    await until("the front takes no more", async () => {
      const written = Math.max(0, socket.write(chunk))
      sent += written
      refusals = written === 0 ? refusals + 1 : 0
      return refusals > 20
    })
    socket.terminate()
  })
  expect(sent).toBeLessThan(32 * 1024 * 1024)
  expect(growth).toBeLessThan(growthMibMax)
}, 60_000)
