/** Both ends of the wire together: this host against the real agent's connection loop, as a program of its own. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { type Guest, openGuest } from "./connection.ts"

const go = Bun.which("go")
if (!go) console.warn("skipped: no Go on this machine, so the agent cannot be built")

const deadlineMs = 10_000
const directory = mkdtempSync(join(tmpdir(), "bhatti-agent-"))
const socketPath = join(directory, "agent.sock")
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
  const build = Bun.spawn([go, "test", "-c", "-o", program, "."], { cwd: agentFolder, stderr: "inherit" })
  expect(await build.exited).toBe(0)
  agent = Bun.spawn([program, "-test.run=^TestServeOnSocket$", "-test.timeout=0"], {
    cwd: directory,
    env: { ...process.env, LOHAR_TEST_SOCKET: socketPath },
    stdout: "ignore",
    stderr: "inherit",
  })
  const end = performance.now() + deadlineMs
  while (!existsSync(socketPath) && performance.now() < end) await Bun.sleep(5)
  guest = await openGuest({ socketPath })
}, 120_000)

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
  const process = guest.exec({ argv, user, cwd: "/", stdin: input !== undefined, ...(tty && { tty }) })
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
  return { ...(await process.result), stdoutBytes, text, sha256: hash.digest("hex") }
}

describe.skipIf(!go)("the real agent", () => {
  test("refuses commands until it is personalised", async () => {
    expect(await guest.ping({ deadlineMs })).toEqual({
      version: "test",
      personalised: false,
      bootFailures: [],
    })
    await expect(run(["true"])).rejects.toMatchObject({ code: "conflict" })
    expect(await guest.personalise(identity, { deadlineMs })).toEqual({ bootId: "test" })
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
    const unread = guest.exec({ argv: ["yes"], user, cwd: "/" })
    const read = guest.exec({ argv: ["yes"], user, cwd: "/" })
    let floodBytes = 0
    const reading = (async () => {
      for await (const { bytes } of read.output) floodBytes += bytes.length
    })()
    await read.started
    for (let round = 0; round < 10; round++) expect((await run(["echo", "quick"])).text).toBe("quick\n")
    expect(floodBytes).toBeGreaterThan(0)
    for (const process of [unread, read]) {
      process.kill()
      expect(await process.result).toEqual({ exitCode: 137, signal: "KILL" })
    }
    await reading
  })

  test("gives a command a terminal", async () => {
    const process = guest.exec({
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
        await process.write(Buffer.from("go\n"))
      }
    }
    expect(text).toBe("30 100\r\ngo\r\n40 120\r\n")
    expect(await process.result).toEqual({ exitCode: 0, signal: null })
  })

  test("passes signals on", async () => {
    const process = guest.exec({ argv: ["sleep", "100"], user, cwd: "/" })
    await process.started
    process.signal("TERM")
    expect(await process.result).toEqual({ exitCode: 143, signal: "TERM" })
  })

  test("runs many commands at once", async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, index) => run(["echo", String(index)])))
    expect(all.map(({ text }) => text)).toEqual(Array.from({ length: 200 }, (_, index) => `${index}\n`))
  })

  test("forgets its identity when it is quiesced", async () => {
    const busy = guest.exec({ argv: ["sleep", "100"], user, cwd: "/" })
    await busy.started
    await expect(guest.quiesce({ deadlineMs })).rejects.toMatchObject({ code: "conflict" })
    busy.kill()
    await busy.result
    await guest.quiesce({ deadlineMs })
    guest.close()
    guest = await openGuest({ socketPath })
    expect((await guest.ping({ deadlineMs })).personalised).toBe(false)
  })

  test("kills the commands of a lost connection", async () => {
    await guest.personalise(identity, { deadlineMs })
    const process = guest.exec({ argv: ["sleep", "100"], user, cwd: "/" })
    const { pid } = await process.started
    guest.close()
    guest = await openGuest({ socketPath })
    await guest.waitReady({ deadlineMs, resync: true })
    const end = performance.now() + deadlineMs
    while (existsSync(`/proc/${pid}`) && performance.now() < end) await Bun.sleep(5)
    expect(existsSync(`/proc/${pid}`)).toBe(false)
    expect((await guest.ping({ deadlineMs })).personalised).toBe(true)
  })
})
