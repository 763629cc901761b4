/** Both ends of the wire together: this host against the real agent's connection loop, as a program of its own. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, openSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import type { ProcessOutcome } from "@bhatti/contract/guest"
import { type Guest, openGuest } from "./guest.ts"

const go = Bun.which("go")
if (!go) console.warn("skipped: no Go on this machine, so the agent cannot be built")

const deadlineMs = 10_000
const directory = mkdtempSync(join(tmpdir(), "bhatti-agent-"))
const socketPath = join(directory, "agent.sock")
const sharedPath = join(directory, "shared")
let sharedOpened = 0
const agentFolder = resolve(import.meta.dir, "../../agent")
let agent: Bun.Subprocess | undefined
let guest: Guest

const user = String(process.getuid?.())
const identity = {
  hostname: "dev",
  machineId: "0".repeat(32),
  env: { SANDBOX: "yes" },
  network: null,
  growDisk: false,
}

beforeAll(async () => {
  if (!go) return
  const program = join(directory, "agent.test")
  writeFileSync(sharedPath, "")
  truncateSync(sharedPath, 2 << 20)
  const build = Bun.spawn([go, "test", "-c", "-o", program, "."], { cwd: agentFolder, stderr: "inherit" })
  expect(await build.exited).toBe(0)
  agent = Bun.spawn([program, "-test.run=^TestServeOnSocket$", "-test.timeout=0"], {
    cwd: directory,
    env: { ...process.env, LOHAR_TEST_SOCKET: socketPath, LOHAR_TEST_SHARED: sharedPath },
    stdout: "ignore",
    stderr: "inherit",
  })
  guest = await openWithin(deadlineMs)
}, 120_000)

async function meet(): Promise<Guest> {
  const opened = await openGuest({ socketPath })
  sharedOpened = 0
  opened.share(() => {
    sharedOpened++
    return openSync(sharedPath, "r+")
  })
  return opened
}

/** A socket has a name a moment before anybody listens at it. */
async function openWithin(ms: number): Promise<Guest> {
  const end = performance.now() + ms
  for (;;) {
    try {
      return await meet()
    } catch (error) {
      if (performance.now() > end) throw error
      await Bun.sleep(5)
    }
  }
}

afterAll(() => {
  guest?.close()
  agent?.kill()
  rmSync(directory, { recursive: true })
})

async function run(
  argv: string[],
  options: { input?: Uint8Array; tty?: { rows: number; cols: number } } = {},
) {
  const { input, tty } = options
  const process = guest.processes.start({
    onDisconnect: "kill",
    argv,
    user,
    cwd: "/",
    stdin: input !== undefined,
    ...(tty && { tty }),
  })
  if (input) {
    void process.write(input)
    process.endInput()
  }
  const hash = new Bun.CryptoHasher("sha256")
  let stdoutBytes = 0
  let text = ""
  for await (const { channel, bytes } of process.output) {
    if (channel === "stdout") {
      hash.update(bytes)
      stdoutBytes += bytes.length
    }
    if (text.length < 10_000) text += Buffer.from(bytes).toString()
  }
  return { ...endOf(await process.result), stdoutBytes, text, sha256: hash.digest("hex") }
}

function endOf(outcome: ProcessOutcome): { exitCode?: number; signal?: string | null } {
  return outcome.state === "ended" ? { exitCode: outcome.ended.exitCode, signal: outcome.ended.signal } : {}
}

describe.skipIf(!go)("the real agent", () => {
  test("refuses commands until it is personalised", async () => {
    expect(await guest.ask({ op: "ping" }, { deadlineMs })).toEqual({
      version: "test",
      personalised: false,
      bootFailures: [],
      rootReadOnly: false,
      repair: undefined,
    })
    await expect(run(["true"])).rejects.toMatchObject({ code: "conflict" })
    expect(await guest.ask({ op: "personalise", identity }, { deadlineMs })).toEqual({
      bootId: "test",
      isPending: false,
      knowsImages: false,
    })
    expect(await run(["sh", "-c", "echo $SANDBOX; exit 4"])).toMatchObject({ exitCode: 4, text: "yes\n" })
  })

  test("says what cannot start", async () => {
    await expect(run(["no-such-program"])).rejects.toMatchObject({ code: "not_found" })
    await expect(run(["/etc/passwd"])).rejects.toMatchObject({ code: "invalid" })
  })

  test("echoes megabytes through both windows", async () => {
    const input = new Uint8Array(8 << 20)
    for (let at = 0; at < input.length; at += 65_536) crypto.getRandomValues(input.subarray(at, at + 65_536))
    const echo = await run(["cat"], { input })
    expect(echo.stdoutBytes).toBe(input.length)
    expect(echo.sha256).toBe(new Bun.CryptoHasher("sha256").update(input).digest("hex"))
  })

  test("is quick beside a flood that is read and one that is not", async () => {
    const unread = guest.processes.start({ onDisconnect: "kill", argv: ["yes"], user, cwd: "/" })
    const read = guest.processes.start({ onDisconnect: "kill", argv: ["yes"], user, cwd: "/" })
    let floodBytes = 0
    const reading = (async () => {
      for await (const { bytes } of read.output) floodBytes += bytes.length
    })()
    await read.attached
    for (let round = 0; round < 10; round++) expect((await run(["echo", "quick"])).text).toBe("quick\n")
    expect(floodBytes).toBeGreaterThan(0)
    for (const process of [unread, read]) {
      process.kill("test")
      if (process === unread) await process.output[Symbol.asyncIterator]().return?.()
      expect(await process.result).toMatchObject({ ended: { exitCode: 137, signal: "KILL" } })
    }
    await reading
  })

  test("gives a command a terminal", async () => {
    const process = guest.processes.start({
      onDisconnect: "kill",
      argv: ["sh", "-c", "stty size; read line; stty size"],
      user,
      cwd: "/",
      stdin: true,
      tty: { rows: 30, cols: 100 },
    })
    let text = ""
    for await (const { bytes } of process.output) {
      text += Buffer.from(bytes).toString()
      if (text === "30 100\r\n") {
        process.resize({ rows: 40, cols: 120 })
        // Input may overtake a message; another operation does not.
        await guest.ask({ op: "ping" }, { deadlineMs })
        await process.write(Buffer.from("go\n"))
      }
    }
    expect(text).toBe("30 100\r\ngo\r\n40 120\r\n")
    expect(await process.result).toMatchObject({ ended: { exitCode: 0, signal: null } })
  })

  test("passes signals on", async () => {
    const process = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "100"], user, cwd: "/" })
    await process.attached
    process.signal({ signal: "TERM" })
    expect(await process.result).toMatchObject({ ended: { exitCode: 143, signal: "TERM" } })
  })

  test("runs many commands at once", async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, index) => run(["echo", String(index)])))
    expect(all.map(({ text }) => text)).toEqual(Array.from({ length: 200 }, (_, index) => `${index}\n`))
  })

  test("forgets its identity when it is quiesced", async () => {
    const busy = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "100"], user, cwd: "/" })
    await busy.attached
    await expect(guest.ask({ op: "quiesce" }, { deadlineMs })).rejects.toMatchObject({ code: "conflict" })
    busy.kill("test")
    await busy.result
    await guest.ask({ op: "quiesce" }, { deadlineMs })
    guest.close()
    guest = await meet()
    expect((await guest.ask({ op: "ping" }, { deadlineMs })).personalised).toBe(false)
  })

  test("kills the commands of a lost connection", async () => {
    await guest.ask({ op: "personalise", identity }, { deadlineMs })
    const process = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "100"], user, cwd: "/" })
    const { pid } = await process.attached
    guest.close()
    guest = await meet()
    await guest.waitReady({ deadlineMs, resync: true })
    const end = performance.now() + deadlineMs
    while (existsSync(`/proc/${pid}`) && performance.now() < end) await Bun.sleep(5)
    expect(existsSync(`/proc/${pid}`)).toBe(false)
    expect((await guest.ask({ op: "ping" }, { deadlineMs })).personalised).toBe(true)
  })

  test("keeps a session over a lost connection, and replays it", async () => {
    const tty = { rows: 30, cols: 100 }
    const session = guest.processes.start({
      argv: ["cat"],
      user,
      cwd: "/",
      name: "kept",
      stdin: true,
      tty,
      onDisconnect: "keep",
      retainMs: 60_000,
    })
    const { id = "" } = await session.attached
    await session.write(Buffer.from("first\r"))
    await seen(bytesFrom(session.output), "first\r\nfirst\r\n")
    guest.close()
    guest = await meet()
    await guest.waitReady({ deadlineMs, resync: true })
    const [record] = await guest.processes.list({ deadlineMs })
    expect(record).toMatchObject({ id, name: "kept", ended: null, driven: false, argv: ["cat"] })
    const again = guest.processes.attach({ process: "kept", mode: "drive", tty })
    await again.write(Buffer.from("second\r"))
    expect(await seen(bytesFrom(again.output), "second\r\nsecond\r\n")).toStartWith("first\r\nfirst\r\n")
    const over = guest.processes.attach({ process: id, mode: "drive", tty })
    expect(await again.result).toEqual({ state: "taken_over" })
    await guest.processes.signal(id, { signal: "KILL", scope: "session" }, { deadlineMs })
    expect(await over.result).toMatchObject({ state: "ended", ended: { exitCode: 137, signal: "KILL" } })
    await guest.processes.forget(id, { deadlineMs })
    expect(await guest.processes.list({ deadlineMs })).toEqual([])
  })

  test("moves files and directories, whatever their names are", async () => {
    const content = new Uint8Array(6 << 20)
    for (let at = 0; at < content.length; at += 65_536)
      crypto.getRandomValues(content.subarray(at, at + 65_536))
    const path = join(directory, "tree/ü -x\n")
    const upload = guest.open({ op: "writeFile", path, size: content.length, mode: "0640", parents: true })
    await upload.write(content)
    upload.endInput()
    expect(await upload.result).toEqual({ bytes: content.length, entries: 1 })
    expect(await guest.ask({ op: "statFile", path }, { deadlineMs })).toMatchObject({
      mode: "0640",
      size: content.length,
    })

    const download = guest.open({ op: "readFile", path })
    expect((await download.file).name).toBe("ü -x\n")
    expect(sha256(await bytesOf(download.output))).toBe(sha256(content))

    const packed = guest.open({ op: "readArchive", path: join(directory, "tree") })
    const archive = await bytesOf(packed.output)
    const unpacked = guest.open({ op: "writeArchive", path: join(directory, "copy") })
    await unpacked.write(archive)
    unpacked.endInput()
    expect(await unpacked.result).toEqual(await packed.result)
    expect(sha256(await Bun.file(join(directory, "copy/tree/ü -x\n")).bytes())).toBe(sha256(content))
    expect(sharedOpened).toBe(1)
    expect(statSync(sharedPath).blocks).toBe(0)

    await guest.ask({ op: "moveFile", from: path, to: join(directory, "moved") }, { deadlineMs })
    await guest.ask(
      { op: "makeDirectory", path: join(directory, "tree/a/b"), parents: true, mode: "0755" },
      { deadlineMs },
    )
    const listed = await guest.ask({ op: "listFiles", path: join(directory, "tree") }, { deadlineMs })
    expect([listed.files.map(({ name }) => name), listed.isTruncated]).toEqual([["a"], false])
    await guest.ask({ op: "removeFile", path: join(directory, "tree"), recursive: true }, { deadlineMs })
    await expect(
      guest.ask({ op: "statFile", path: join(directory, "tree") }, { deadlineMs }),
    ).rejects.toMatchObject({
      code: "not_found",
    })
  })

  test("moves more files at once than there are regions, of sizes around every bound", async () => {
    const sizes = [0, 1, 16_383, 16_384, 65_535, 65_537, 262_143, 262_145, 1_048_576, 1_048_583, 3_000_001]
    await Promise.all(
      sizes.map(async (size) => {
        const content = new Uint8Array(size)
        for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(content.subarray(at, at + 65_536))
        const path = join(directory, `sized-${size}`)
        const upload = guest.open({ op: "writeFile", path, size })
        for (let at = 0; at < size; at += 100_000) await upload.write(content.subarray(at, at + 100_000))
        upload.endInput()
        expect(await upload.result).toEqual({ bytes: size, entries: 1 })
        expect(sha256(await bytesOf(guest.open({ op: "readFile", path }).output)), `${size} bytes`).toBe(
          sha256(content),
        )
      }),
    )
    expect(statSync(sharedPath).blocks).toBe(0)
  })

  test("connects to what listens in the guest", async () => {
    using listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket, bytes) => void socket.write(bytes), end: (socket) => void socket.end() },
    })
    const connection = guest.open({ op: "dial", port: listener.port })
    await connection.connected
    await connection.write(Buffer.from("echo"))
    expect(await seen(connection.output, "echo")).toBe("echo")
    connection.endInput()
    expect(await connection.result).toBeUndefined()
    expect(await guest.ask({ op: "ports" }, { deadlineMs })).toContainEqual({
      port: listener.port,
      address: "127.0.0.1",
    })
    await expect(guest.open({ op: "dial", port: 1 }).connected).rejects.toMatchObject({ code: "unavailable" })
  })
})

async function bytesOf(output: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return Buffer.concat(await Array.fromAsync(output))
}

async function* bytesFrom(output: AsyncIterable<{ bytes: Uint8Array }>): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of output) yield bytes
}

/** Reads until a text has come. */
async function seen(output: AsyncIterable<Uint8Array>, wanted: string): Promise<string> {
  const pieces = output[Symbol.asyncIterator]()
  for (let text = ""; ; ) {
    const { value, done } = await pieces.next()
    if (done) throw new Error(`it ended before ${JSON.stringify(wanted)}: ${JSON.stringify(text)}`)
    text += Buffer.from(value).toString()
    if (text.includes(wanted)) return text
  }
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
}
