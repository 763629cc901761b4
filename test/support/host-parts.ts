/** The host's part of each recorded conversation: a daemon's requests, and its understanding of the answers. */

import { expect } from "bun:test"
import { join } from "node:path"
import type { ProcessStart, StreamOffsets } from "@bhatti/contract/guest"
import type { Guest } from "../../src/guest/guest.ts"

export type RecordedValues = { directory: string; user: string; port: number }
type Host = { guest: Guest; values: RecordedValues; inputOf: (name: string) => Uint8Array }
type Parts = Record<string, () => Promise<void>>

const deadline = { deadlineMs: 5000 }

const size = { rows: 30, cols: 100 }
const tty = { rows: 24, cols: 80, term: "xterm" }
const endedWith = (exitCode: number, signal: string | null, more: object = {}) =>
  expect.objectContaining({
    ...{ state: "ended", ended: expect.objectContaining({ exitCode, signal, ...more }) },
  })

/** `inputOf` returns the bytes that the recorded host sent in a conversation. */
export function hostParts(host: Host): Parts {
  return {
    ...ofCommands(host),
    ...ofSessions(host),
    ...ofProcesses(host),
    ...ofFiles(host),
    ...ofTheRest(host),
  }
}

function ofCommands({ guest, values: { user } }: Host): Parts {
  const command = (argv: string[]) => ({ argv, user, cwd: "/", onDisconnect: "kill" as const })
  const run = (argv: string[], more: object = {}) => runCommand(guest, { ...command(argv), ...more })
  return {
    "a command before the identity": async () =>
      expect(await failureOf(run(["true"]))).toMatchObject({ code: "conflict" }),
    exec: async () =>
      expect(await run(["sh", "-c", "echo $SANDBOX; echo err >&2; exit 7"])).toEqual({
        ...{ stdout: "yes\n", stderr: "err\n", outcome: endedWith(7, null) },
      }),
    "exec with input": async () => {
      const process = guest.processes.start({ ...command(["cat"]), stdin: true, env: { KEY: "value" } })
      await process.attached
      await process.write(Buffer.from("in\n"))
      for await (const { bytes } of process.output) {
        expect(Buffer.from(bytes).toString()).toBe("in\n")
        process.endInput()
      }
      expect(await process.result).toEqual(endedWith(0, null))
    },
    "exec with a signal": async () => {
      const process = guest.processes.start(command(["sleep", "100"]))
      expect(await process.attached).toMatchObject({ pid: expect.any(Number) })
      process.signal({ signal: "TERM" })
      expect(await process.result).toEqual(endedWith(143, "TERM"))
    },
    "exec that its client leaves": async () => {
      const process = guest.processes.start(command(["sleep", "100"]))
      await process.attached
      process.kill("user")
      expect(await process.result).toEqual(endedWith(137, "KILL"))
    },
    "exec with a terminal": async () => {
      const argv = ["sh", "-c", "stty size; read line; stty size"]
      const process = guest.processes.start({ ...command(argv), stdin: true, tty })
      let text = ""
      for await (const { bytes } of process.output) {
        text += Buffer.from(bytes).toString()
        if (text !== "24 80\r\n") continue
        process.resize({ rows: 40, cols: 120 })
        await process.write(Buffer.from("go\n"))
      }
      expect(text).toBe("24 80\r\ngo\r\n40 120\r\n")
      expect(await process.result).toEqual(endedWith(0, null))
    },
    "exec of no program": async () =>
      expect(await failureOf(run(["/no/such/program"]))).toMatchObject({ code: "not_found" }),
    "exec of a file that is none": async () =>
      expect(await failureOf(run(["/etc/passwd"]))).toMatchObject({ code: "invalid" }),
    "exec of no user": async () =>
      expect(await failureOf(run(["true"], { user: "no-such-user" }))).toMatchObject({ code: "invalid" }),
    "exec in no directory": async () =>
      expect(await failureOf(run(["true"], { cwd: "/no/such/directory" }))).toMatchObject({
        code: "invalid",
      }),
    "quiesce while a command runs": async () => {
      const process = guest.processes.start(command(["sleep", "100"]))
      await process.attached
      expect(await failureOf(guest.ask({ op: "quiesce" }, deadline))).toMatchObject({ code: "conflict" })
      process.leave()
      expect(await process.result).toEqual(endedWith(137, "KILL"))
    },
  }
}

/** Hosts of generation 2 have sessions. */
function ofSessions({ guest, values: { user } }: Host): Parts {
  const session = (argv: string[]) => ({ argv, user, cwd: "/", tty, onDisconnect: "keep" as const })
  return {
    "a session": async () => {
      const first = guest.processes.start({ ...session(["cat"]), name: "kept" })
      expect(await first.attached).toMatchObject({ id: "s1", name: "kept" })
      await first.write(Buffer.from("first\r"))
      await seen(bytesOf(first.output), "first\r\nfirst\r\n")
      first.leave()
      expect(await first.result).toEqual({ state: "left" })
      const second = guest.processes.attach({ process: "kept", mode: "drive", tty: size })
      await seen(bytesOf(second.output), "\u001b8")
      expect(await guest.processes.list(deadline)).toMatchObject([{ id: "s1", ended: null, driven: true }])
      const kept = guest.processes.attach({ process: "kept", mode: "watch", follow: false })
      await seen(bytesOf(kept.output), "first\r\nfirst\r\n")
      expect(await kept.result).toEqual({ state: "left" })
      const third = guest.processes.attach({ process: "kept", mode: "drive", tty: size })
      expect(await second.result).toEqual({ state: "taken_over" })
      await guest.processes.signal("kept", { signal: "KILL" }, deadline)
      expect(await third.result).toEqual(endedWith(137, "KILL"))
    },
    "the end of a session that nobody is attached to": async () => {
      const ended = Promise.withResolvers<unknown>()
      const ignore = () => undefined
      guest.watch({
        onNamedEnded: ended.resolve,
        onAbnormalEnd: ignore,
        onMemoryKill: ignore,
        onServiceFailing: ignore,
      })
      const start = { ...session(["sh", "-c", "sleep 0.3; exit 3"]), name: "job" }
      const started = await guest.processes.startDetached(start, deadline)
      expect(started).toMatchObject({ process: { id: "s1" }, isNew: true })
      expect(await ended.promise).toMatchObject({ process: "s1", name: "job", ended: { exitCode: 3 } })
      await guest.ask({ op: "quiesce" }, deadline)
    },
  }
}

/** Later hosts have processes. */
function ofProcesses({ guest, values: { user } }: Host): Parts {
  const command = { user, cwd: "/", onDisconnect: "kill" as const }
  const kept = { ...command, onDisconnect: "keep" as const }
  const script = (text: string) => ["sh", "-c", text]
  const offsets = { stdout: 0, stderr: 0 }
  const { processes } = guest
  return {
    "a process": async () =>
      expect(
        await runCommand(guest, { ...command, argv: script("echo $SANDBOX; echo err >&2; exit 7") }),
      ).toEqual({ stdout: "yes\n", stderr: "err\n", outcome: endedWith(7, null, { reason: "exited" }) }),
    "a process of no program": async () =>
      expect(await failureOf(runCommand(guest, { ...command, argv: ["/no/such/program"] }))).toMatchObject({
        code: "not_found",
        reason: "no_program",
      }),
    "a process with input, which a signal ends": async () => {
      const argv = script("cat; echo end; sleep 100")
      const process = processes.start({ ...command, argv, stdin: true, env: { KEY: "value" } })
      expect(await process.attached).toMatchObject({ id: "p1", isNew: true })
      await process.write(Buffer.from("in\n"))
      const output = bytesOf(process.output)
      await seen(output, "in\n")
      process.endInput()
      await seen(output, "end\n")
      process.signal({ signal: "KILL", scope: "session", by: "client" })
      expect(await process.result).toEqual(endedWith(137, "KILL", { reason: "signal", by: "client" }))
    },
    "a process by its key": async () => {
      const start = { ...kept, argv: script("echo once"), key: "k1" }
      const times = { graceMs: 1000, ringBytes: 65_536, timeoutMs: 60_000, retainMs: 60_000 }
      const first = await runCommand(guest, { ...start, ...times, elapsedMs: 0 })
      expect(first).toMatchObject({ stdout: "once\n", outcome: endedWith(0, null) })
      const again = processes.start({ ...start, elapsedMs: 5, from: { stdout: 2, stderr: 0 } })
      expect(await again.attached).toMatchObject({ id: "p1", isNew: false })
      await seen(bytesOf(again.output), "ce\n")
      expect(await again.result).toEqual(endedWith(0, null))
      const other = { ...kept, argv: script("echo twice"), key: "k1" }
      expect(await failureOf(runCommand(guest, other))).toMatchObject({ reason: "key_reused" })
      const ended = { id: "p1", ended: { exitCode: 0 } }
      expect(await processes.list(deadline)).toMatchObject([ended])
      expect(await processes.get("p1", deadline)).toMatchObject(ended)
      await processes.forget("p1", deadline)
      expect(await failureOf(processes.get("p1", deadline))).toMatchObject({ code: "not_found" })
    },
    "the end of a process that nobody is attached to": async () => {
      const ended = Promise.withResolvers<unknown>()
      guest.watch({
        onNamedEnded() {},
        onAbnormalEnd: ended.resolve,
        onMemoryKill() {},
        onServiceFailing() {},
      })
      const start = { ...kept, argv: script("sleep 0.3; kill -9 $$") }
      expect(await processes.startDetached(start, deadline)).toMatchObject({ process: { id: "p1" } })
      expect(await ended.promise).toMatchObject({ process: "p1", ended: { by: "guest", signal: "KILL" } })
      await guest.ask({ op: "quiesce" }, deadline)
    },
    "a process with a terminal, seen by two": async () => {
      const start = { ...kept, argv: ["cat"], stdin: true, tty, name: "kept", retainMs: 60_000 }
      await seenByTwo(guest, start, offsets)
    },
  }
}

async function seenByTwo(guest: Guest, start: ProcessStart, from: StreamOffsets): Promise<void> {
  const { processes } = guest
  const first = processes.start(start)
  expect(await first.attached).toMatchObject({ id: "s1", name: "kept" })
  await first.write(Buffer.from("first\r"))
  await seen(bytesOf(first.output), "first\r\nfirst\r\n")
  const watcher = processes.attach({ process: "kept", mode: "watch", from })
  const watched = bytesOf(watcher.output)
  await seen(watched, "first\r\nfirst\r\n")
  first.leave()
  expect(await first.result).toEqual({ state: "left" })
  await processes.resize("kept", size, deadline)
  const typed = processes.input("kept", { at: 6 })
  await typed.write(Buffer.from("second\r"))
  typed.endInput()
  expect(await typed.result).toEqual({ input: 13 })
  await seen(watched, "second\r\nsecond\r\n")
  const driver = processes.attach({ process: "kept", mode: "drive", tty: size, from })
  await seen(bytesOf(driver.output), "second\r\nsecond\r\n")
  const waiting = processes.wait("kept")
  await processes.signal("kept", { signal: "KILL", scope: "session", by: "client" }, deadline)
  const end = endedWith(137, "KILL", { reason: "signal", by: "client" })
  expect(await driver.result).toEqual(end)
  expect(await watcher.result).toEqual(end)
  expect(await waiting.result).toMatchObject({ id: "s1", ended: { exitCode: 137 } })
  const later = processes.attach({ process: "kept", mode: "watch", follow: false })
  await seen(bytesOf(later.output), "second\r\nsecond\r\n")
  expect(await later.result).toEqual(end)
}

function ofFiles({ guest, values, inputOf }: Host): Parts {
  const { user } = values
  const at = (name: string) => join(values.directory, name)
  const file = { name: "hello.txt", size: 6, mode: "0644", type: "file", owner: "root" }
  return {
    file_read: async () => {
      const download = guest.open({ op: "readFile", path: at("hello.txt") })
      expect(await download.file).toMatchObject(file)
      expect(await textOf(download.output)).toBe("hello\n")
      expect(await download.result).toEqual({ bytes: 6 })
    },
    "file_read of a part": async () => {
      const download = guest.open({ op: "readFile", path: at("hello.txt"), offset: 1, limit: 3 })
      expect(await textOf(download.output)).toBe("ell")
    },
    "file_read of nothing": async () =>
      expect(await failureOf(guest.open({ op: "readFile", path: at("missing") }).file)).toMatchObject({
        code: "not_found",
      }),
    file_write: async () => {
      const path = at("new/file.txt")
      const upload = guest.open({ op: "writeFile", path, mode: "0640", size: 4, parents: true })
      await upload.write(Buffer.from("new\n"))
      upload.endInput()
      expect(await upload.result).toMatchObject({ bytes: 4 })
    },
    file_owner: async () =>
      expect(await guest.ask({ op: "findOwner", owner: user }, deadline)).toEqual({ uid: 0, gid: 0 }),
    file_list: async () => {
      const listed = await guest.ask({ op: "listFiles", path: values.directory }, deadline)
      expect(listed).toMatchObject({ files: [file, { name: "tree", type: "directory" }], isTruncated: false })
    },
    file_stat: async () =>
      expect(await guest.ask({ op: "statFile", path: at("hello.txt") }, deadline)).toMatchObject(file),
    file_remove: async () =>
      void (await guest.ask({ op: "removeFile", path: at("tree"), recursive: true }, deadline)),
    file_mkdir: async () => {
      const fields = { path: at("made/below"), parents: true, mode: "0755" }
      await guest.ask({ op: "makeDirectory", ...fields }, deadline)
    },
    file_move: async () => {
      await guest.ask({ op: "moveFile", from: at("hello.txt"), to: at("moved.txt") }, deadline)
    },
    archive_read: async () => {
      const archive = guest.open({ op: "readArchive", path: at("tree") })
      expect(await textOf(archive.output)).toContain("tree/a.txt")
      expect(await archive.result).toEqual({ entries: 4, bytes: 5 })
    },
    archive_write: async () => {
      const archive = guest.open({ op: "writeArchive", path: values.directory })
      await archive.write(inputOf("archive_write"))
      archive.endInput()
      expect(await archive.result).toEqual({ entries: 1, bytes: 4 })
    },
    "file_stat of nothing": async () =>
      expect(await failureOf(guest.ask({ op: "statFile", path: at("missing") }, deadline))).toMatchObject({
        code: "not_found",
      }),
    file_attributes: async () => {
      const path = at("hello.txt")
      const set = { "user.origin": Buffer.from("net") }
      await guest.ask({ op: "setAttributes", path, set, remove: ["user.none"] }, deadline)
      expect(await guest.ask({ op: "statFile", path }, deadline)).toMatchObject({ attributes: {} })
    },
    file_watch: async () => {
      const { watch } = await guest.ask(
        { op: "openWatch", path: values.directory, recursive: true },
        deadline,
      )
      const made = { path: at("seen"), parents: false, mode: "0755" }
      await guest.ask({ op: "makeDirectory", ...made }, deadline)
      const read = await guest.ask({ op: "awaitWatch", watch, after: 0 }, deadline)
      expect(read).toMatchObject({
        events: expect.arrayContaining([expect.objectContaining({ path: "seen" })]),
      })
      await guest.ask({ op: "removeWatch", watch }, deadline)
    },
  }
}

function ofTheRest({ guest, values: { port, user } }: Host): Parts {
  const identity = {
    ...{ hostname: "dev", machineId: "0123456789abcdef0123456789abcdef" },
    ...{ env: { SANDBOX: "yes" }, network: null, growDisk: false },
  }
  return {
    ping: async () =>
      expect(await guest.ask({ op: "ping" }, deadline)).toMatchObject({ personalised: false }),
    personalise: async () =>
      expect(await guest.ask({ op: "personalise", identity }, deadline)).toMatchObject({ bootId: "test" }),
    refresh: async () => void (await guest.ask({ op: "refresh" }, deadline)),
    dial: async () => {
      const connection = guest.open({ op: "dial", port })
      await connection.connected
      await connection.write(Buffer.from("echo"))
      await seen(connection.output, "echo")
      connection.endInput()
      await connection.result
    },
    "dial of a closed port": async () =>
      expect(await failureOf(guest.open({ op: "dial", port: 1 }).connected)).toMatchObject({
        code: "unavailable",
      }),
    ports: async () =>
      expect(await guest.ask({ op: "ports" }, deadline)).toEqual([{ port, address: "127.0.0.1" }]),
    trim: async () => void (await guest.ask({ op: "trim", budgetMs: 250 }, deadline)),
    next_timer: async () =>
      expect(await guest.ask({ op: "nextTimer" }, deadline)).toEqual({ dueMs: expect.any(Number) }),
    quiesce: async () => void (await guest.ask({ op: "quiesce" }, deadline)),
    shutdown: async () => void (await guest.ask({ op: "shutdown" }, deadline)),
    services: async () => {
      const common = { argv: ["sleep", "100"], user, cwd: "/" }
      const db = { ...common, name: "db", restart: "always" as const, after: [] }
      const web = { ...common, name: "web", restart: "on-failure" as const, after: ["db"] }
      const running = [{ name: "db" }, { name: "web" }]
      expect(await guest.ask({ op: "startServices", services: [db, web] }, deadline)).toMatchObject(running)
      expect(await guest.ask({ op: "listServices" }, deadline)).toMatchObject(running)
      const stop = { service: "web", action: "stop" as const }
      expect(await guest.ask({ op: "controlService", ...stop }, deadline)).toMatchObject([
        { name: "db", state: "running" },
        { name: "web", state: "stopped" },
      ])
      await guest.ask({ op: "controlService", service: "db", action: "stop" }, deadline)
    },
    clone_start: async () => expect(await guest.ask({ op: "startClone" }, deadline)).toEqual([]),
  }
}

async function runCommand(guest: Guest, start: ProcessStart) {
  const process = guest.processes.start(start)
  const texts = { stdout: "", stderr: "" }
  for await (const { channel, bytes } of process.output) texts[channel] += Buffer.from(bytes).toString()
  return { ...texts, outcome: await process.result }
}

async function* bytesOf(output: AsyncIterable<{ bytes: Uint8Array }>): AsyncIterable<Uint8Array> {
  for await (const { bytes } of output) yield bytes
}

async function textOf(output: AsyncIterable<Uint8Array>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(output)).toString()
}

/** Reads until a text has come. */
async function seen(output: AsyncIterable<Uint8Array>, wanted: string): Promise<void> {
  let text = ""
  const pieces = output[Symbol.asyncIterator]()
  while (!text.includes(wanted)) {
    const { value, done } = await pieces.next()
    if (done) throw new Error(`it ended after ${JSON.stringify(text)}`)
    text += Buffer.from(value).toString()
  }
}

function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => "it succeeded",
    (error: unknown) => error,
  )
}
