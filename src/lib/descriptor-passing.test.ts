/** A descriptor reaches the other end of a unix socket, with the bytes that it was sent with. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../../test/support/installation.ts"
import {
  askForSenders,
  connectUnix,
  receiveMessage,
  sendDescriptor,
  sendDescriptors,
} from "./descriptor-passing.ts"
import { listenUnix } from "./posix.ts"

let directory = ""
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-descriptors-")
})
afterEach(() => rmSync(directory, { recursive: true }))

const receiver = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
os.write(1, b"ready\\n")
c, _ = s.accept()
data, fds, _, _ = socket.recv_fds(c, 100, 4)
os.write(1, f"{data.decode()} {[open(fd).read() for fd in fds]}\\n".encode())
`

test("the receiver reads the file, though its path is gone", async () => {
  const path = join(directory, "socket")
  const file = join(directory, "file")
  writeFileSync(file, "content")
  await using python = Bun.spawn(["python3", "-c", receiver, path], { stdout: "pipe" })
  const reader = python.stdout.getReader()
  expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("ready\n")
  const socket = connectUnix(path) ?? -1
  const opened = openSync(file, "r")
  rmSync(file)
  expect(sendDescriptor(socket, Buffer.from("a line"), opened)).toBe(true)
  expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("a line ['content']\n")
  closeSync(opened)
  closeSync(socket)
})

test("a socket that takes nothing more takes no descriptor, and none is left open", () => {
  const path = join(directory, "socket")
  expect(connectUnix(path)).toBeUndefined()
  const listening = listenUnix(path)
  const socket = connectUnix(path) ?? -1
  const null_ = openSync("/dev/null", "r")
  const line = Buffer.alloc(65_536)
  let sent = 0
  while (sent < 100 && sendDescriptor(socket, line, null_)) sent++
  expect(sent).toBeLessThan(100)
  const before = readdirSync("/proc/self/fd").length
  const waiting: number[] = []
  for (let fd = connectUnix(path); fd !== undefined; fd = connectUnix(path)) waiting.push(fd)
  expect(readdirSync("/proc/self/fd").length).toBe(before + waiting.length)
  for (const fd of [...waiting, null_, socket, listening]) closeSync(fd)
})

const sender = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen()
os.write(1, b"ready\\n")
c, _ = s.accept()
c.recv(100)
null = os.open("/dev/null", os.O_RDONLY)
socket.send_fds(c, [b"words"], [null] * 8)
c.recv(100)
`

test("a message is received with its sender, and descriptors that nobody asked for are not", async () => {
  const path = join(directory, "socket")
  await using python = Bun.spawn(["python3", "-c", sender, path], { stdout: "pipe" })
  await python.stdout.getReader().read()
  const socket = connectUnix(path, "packets") ?? -1
  askForSenders(socket)
  const before = readdirSync("/proc/self/fd").length
  expect(sendDescriptors(socket, Buffer.from("send"), [])).toBe(true)
  let received: ReturnType<typeof receiveMessage> = "none"
  await until("the answer is there", () => {
    received = receiveMessage(socket)
    return received !== "none"
  })
  expect(received).toMatchObject({ pid: python.pid, uid: process.getuid?.() })
  expect(readdirSync("/proc/self/fd").length).toBe(before)
  closeSync(socket)
})
