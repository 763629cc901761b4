/**
 * Cases that every implementation of the host's ports passes. A fake or simulated host is of use only while it keeps
 * the promises of the adapters, so each of the three runs them.
 */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import type { GuestIdentity, OutputChunk, ProcessOutcome, ProcessStart } from "@bhatti/contract/guest"
import type { Attachment, Guest, Host, Machine, Template } from "../../src/core/host.ts"
import { until } from "../support/installation.ts"

export type Left = { memory: string; disk: string }

/** An implementation under test; one template of the default size exists. */
export type Subject = AsyncDisposable & {
  host(): Host
  template(): Promise<Template>
  /** Another daemon takes over the host; machines run on. */
  restart(): Promise<void>
  /** Puts a word into the guest's memory and another on its disk. */
  leave(guest: Guest, left: Left): Promise<void>
  read(guest: Guest): Promise<Left>
}

export type GuestSubject = Subject & {
  /** Prints "out" to standard output and "err" to standard error. */
  both: string[]
  /** Prints so many bytes. */
  flood: (bytes: number) => string[]
}

type Started = { id: string; slot: number; machine: Machine; guest: Guest }
type SandboxPlace = Pick<Started, "id" | "slot">

/** Enough for an emulated guest on a busy host. */
const deadlineMs = 30_000
const neverAborted = new AbortController().signal

class Sandboxes {
  readonly #subject: Subject
  readonly #started: SandboxPlace[] = []
  #next = 1

  constructor(subject: Subject) {
    this.#subject = subject
  }

  get host(): Host {
    return this.#subject.host()
  }

  newPlace(): SandboxPlace {
    const slot = this.#next++
    const place = { id: `sb_${slot.toString(16).padStart(8, "0")}0000`, slot }
    this.#started.push(place)
    return place
  }

  /** Starts a clone of the template, up to its identity. */
  async clone({ env = {} }: { env?: Record<string, string> } = {}): Promise<Started> {
    return this.start(this.newPlace(), "template", { env })
  }

  attachmentOf(place: SandboxPlace): Attachment {
    return {
      ...place,
      owner: "suite",
      hostname: "suite",
      policy: { default: "deny", allow_hosts: [], allow_cidrs: [] },
    }
  }

  /** Starts a machine, up to the moment at which its guest answers. */
  async begin(place: SandboxPlace, how: "template" | "memory"): Promise<Started> {
    const { machines, disks, network } = this.host
    await network?.attach(this.attachmentOf(place))
    const template = await this.#subject.template()
    if (how === "template") await disks.createSandbox({ id: place.id, template })
    const { machine, guest } = await machines.start({ ...place, template, diskMib: 8192 }, { kind: how })
    await guest.waitReady({ deadlineMs, resync: how === "memory" })
    return { ...place, machine, guest }
  }

  async start(
    place: SandboxPlace,
    how: "template" | "memory",
    { env = {} }: { env?: Record<string, string> } = {},
  ): Promise<Started> {
    const started = await this.begin(place, how)
    await started.guest.ask({ op: "personalise", identity: this.identityOf(place, env) }, { deadlineMs })
    await this.host.network?.linkUp(place)
    return started
  }

  identityOf(place: SandboxPlace, env: Record<string, string> = {}): GuestIdentity {
    return {
      hostname: "suite",
      machineId: String(place.slot).padStart(32, "0"),
      env,
      network: this.host.network?.identityOf(place) ?? null,
      growDisk: false,
    }
  }

  async stop({ machine, guest }: Started): Promise<void> {
    await this.host.machines.kill(machine)
    guest.close()
  }

  async removeAll(): Promise<void> {
    const { machines, disks, network } = this.host
    for (const { id } of this.#started.splice(0)) {
      await machines.kill({ id })
      await network?.detach(id)
      await disks.removeSandbox(id)
    }
  }
}

/** The `AppError` that it fails with. */
async function errorOf(work: () => unknown): Promise<AppError> {
  try {
    await work()
  } catch (error) {
    if (error instanceof AppError) return error
    throw error
  }
  throw new Error("it did not fail")
}

async function textOf(output: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  for await (const bytes of output) parts.push(bytes)
  return Buffer.concat(parts).toString()
}

function suite<Kind extends Subject>(open: () => Promise<Kind>) {
  let subject: Kind
  let sandboxes: Sandboxes
  beforeAll(async () => {
    subject = await open()
    sandboxes = new Sandboxes(subject)
  }, 300_000)
  afterAll(async () => {
    await sandboxes?.removeAll()
    await subject?.[Symbol.asyncDispose]()
  })
  return {
    get subject() {
      return subject
    },
    get host() {
      return subject.host()
    },
    get sandboxes() {
      return sandboxes
    },
  }
}

/** Machines, disks and copies of them, the network: everything but the contents of a guest. */
export function powerCases(open: () => Promise<Subject>): void {
  const at = suite(open)
  afterEach(() => at.sandboxes.removeAll())

  test("a missing template is an error that a retry does not help", async () => {
    const error = await errorOf(() => at.host.templates.get("missing"))
    expect([error.code, error.retryable]).toEqual(["unavailable", false])
  })

  test("a clone answers, and can be found in its directory", async () => {
    const { id, machine, guest } = await at.sandboxes.clone()
    const { machines, disks } = at.host
    expect((await guest.ask({ op: "ping" }, { deadlineMs })).personalised).toBe(true)
    expect(machines.isRunning(machine)).toBe(true)
    expect(machines.find(id)?.process).toEqual(machine.process)
    expect(await disks.listSandboxes()).toContain(id)
  })

  test("a paused guest does not answer before it resumes", async () => {
    const { machine, guest } = await at.sandboxes.clone()
    const { machines } = at.host
    expect(await machines.haltOf(machine)).toBe("none")
    await machines.pause(machine)
    await machines.pause(machine)
    expect(await machines.haltOf(machine)).toBe("paused")
    expect((await errorOf(() => guest.ask({ op: "ping" }, { deadlineMs: 200 }))).code).toBe("unavailable")
    await machines.resume(machine)
    await machines.resume(machine)
    expect(await machines.haltOf(machine)).toBe("none")
  })

  test("a saved machine continues with its memory and its disk", async () => {
    const first = await at.sandboxes.clone()
    const { machines } = at.host
    const template = await at.subject.template()
    await at.subject.leave(first.guest, { memory: "kept", disk: "written" })
    expect((await machines.checkSnapshot(first.id, template)).fits).toBe(false)
    await first.guest.ask({ op: "quiesce" }, { deadlineMs })
    await machines.pause(first.machine)
    await machines.saveSnapshot(first.machine)
    await at.sandboxes.stop(first)
    expect((await machines.checkSnapshot(first.id, template)).fits).toBe(true)

    const second = await at.sandboxes.start(first, "memory")
    expect(await at.subject.read(second.guest)).toEqual({ memory: "kept", disk: "written" })
    await machines.removeSnapshot(first.id)
    await machines.removeSnapshot(first.id)
    expect((await machines.checkSnapshot(first.id, template)).fits).toBe(false)
  })

  test("a copy has the memory and the disk of one moment, and its source goes on", async () => {
    const source = await at.sandboxes.clone()
    const { machines, snapshots } = at.host
    await at.subject.leave(source.guest, { memory: "then", disk: "then" })
    await snapshots.begin("copy")
    await snapshots.copyAhead({ id: "copy", sandboxId: source.id, signal: neverAborted })
    await machines.pause(source.machine)
    await machines.saveSnapshot(source.machine, { draft: "copy", signal: neverAborted })
    await snapshots.capture({ id: "copy", sandboxId: source.id, storedMemory: false, signal: neverAborted })
    await machines.resume(source.machine)
    await source.guest.ask({ op: "refresh" }, { deadlineMs })
    expect(await snapshots.list()).toEqual([])
    expect((await snapshots.commit("copy")).bytes).toBeGreaterThan(0)
    expect(await snapshots.list()).toEqual(["copy"])

    await at.subject.leave(source.guest, { memory: "later", disk: "later" })
    const place = at.sandboxes.newPlace()
    const placed = await snapshots.place({ id: "copy", sandboxId: place.id, signal: neverAborted })
    expect(placed).toEqual({ hasMemory: true })
    const copy = await at.sandboxes.start(place, "memory")
    expect(await at.subject.read(copy.guest)).toEqual({ memory: "then", disk: "then" })
    expect(await at.subject.read(source.guest)).toEqual({ memory: "later", disk: "later" })
    await snapshots.remove("copy")
    await snapshots.remove("copy")
    expect(await snapshots.list()).toEqual([])
  })

  test("a machine's end closes its channel, and the host has forgotten it", async () => {
    const { id, machine, guest } = await at.sandboxes.clone()
    const { machines } = at.host
    await machines.kill(machine)
    await guest.closed
    expect(machines.isRunning(machine)).toBe(false)
    expect(await machines.fateOf(machine, { deadlineMs: 0 })).toEqual({ how: "killed" })
    expect(machines.find(id)).toBeUndefined()
    expect((await errorOf(() => machines.connect(machine))).code).toBe("unavailable")
    expect((await errorOf(() => guest.ask({ op: "ping" }, { deadlineMs }))).code).toBe("unavailable")
    for (const call of ["pause", "resume", "haltOf", "saveSnapshot"] as const)
      expect((await errorOf(() => machines[call](machine))).code).toBe("unavailable")
    expect(machines.usageOf(machine).cpuMs).toBe(0)
    await machines.kill(machine)
    await machines.kill({ id })
  })

  test("another daemon finds a running machine and its guest as they were", async () => {
    const { id, slot, machine, guest } = await at.sandboxes.clone()
    await at.subject.leave(guest, { memory: "kept", disk: "written" })
    guest.close()
    await at.subject.restart()
    const { machines, network } = at.host
    await network?.resync([at.sandboxes.attachmentOf({ id, slot })])
    expect(machines.find(id)).toEqual(machine)
    expect(machines.isRunning(machine)).toBe(true)
    const again = await machines.connect(machine)
    await again.waitReady({ deadlineMs, resync: true })
    await again.ask({ op: "refresh" }, { deadlineMs })
    expect(await at.subject.read(again)).toEqual({ memory: "kept", disk: "written" })
    again.close()
  })

  test("a clone refuses commands until it has an identity of its own", async () => {
    const place = at.sandboxes.newPlace()
    const { guest } = await at.sandboxes.begin(place, "template")
    expect((await guest.ask({ op: "ping" }, { deadlineMs })).personalised).toBe(false)
    expect(
      (await errorOf(() => guest.processes.start({ onDisconnect: "kill", argv: ["true"] }).result)).code,
    ).toBe("conflict")
    await guest.ask({ op: "personalise", identity: at.sandboxes.identityOf(place) }, { deadlineMs })
    await guest.ask({ op: "refresh" }, { deadlineMs })
    guest.close()
  })

  test("the network takes a sandbox up and lets it go, however often it is asked", async () => {
    const { id, slot } = await at.sandboxes.clone()
    const { network } = at.host
    if (!network) return
    const attachment = at.sandboxes.attachmentOf({ id, slot })
    expect(network.identityOf({ id, slot })).toEqual(network.identityOf({ id, slot }))
    await network.attach({ ...attachment, hostname: "renamed" })
    await network.linkUp({ id, slot })
    await network.detach(id)
    await network.detach(id)
    await network.resync([attachment])
    await network.detach(id)
  })
}

/** Commands, sessions and files of a guest. */
export function guestCases(open: () => Promise<GuestSubject>): void {
  const at = suite(open)
  let guest: Guest
  let machine: Machine
  beforeEach(async () => {
    if (machine && at.host.machines.isRunning(machine)) return
    const started = await at.sandboxes.clone({ env: { SUITE: "yes" } })
    guest = started.guest
    machine = started.machine
  }, 60_000)

  const run = async (command: Omit<ProcessStart, "onDisconnect">) => {
    const process = guest.processes.start({ onDisconnect: "kill", ...command })
    const outputs = { stdout: "", stderr: "" }
    for await (const { channel, bytes } of process.output) outputs[channel] += Buffer.from(bytes).toString()
    return { ...outputs, ...endOf(await process.result) }
  }
  const write = async (path: string, content: string, options: { mode?: string; size?: number } = {}) => {
    const transfer = guest.open({ op: "writeFile", path, parents: true, ...options })
    await transfer.write(Buffer.from(content))
    transfer.endInput()
    return transfer.result
  }
  const readFile = (path: string) => textOf(guest.open({ op: "readFile", path }).output)

  test("a command's two outputs, exit code and environment arrive", async () => {
    expect(await run({ argv: at.subject.both })).toEqual({ stdout: "out\n", stderr: "err\n", ...exited(0) })
    expect((await run({ argv: ["env"], env: { MORE: "too" } })).stdout).toMatch(/^SUITE=yes$/m)
    expect((await run({ argv: ["env"], env: { MORE: "too" } })).stdout).toMatch(/^MORE=too$/m)
  })

  test("a command reads its input to the end", async () => {
    const process = guest.processes.start({ onDisconnect: "kill", argv: ["cat"], stdin: true })
    expect((await process.attached).pid).toBeGreaterThan(0)
    await process.write(Buffer.from("one "))
    await process.write(Buffer.from("two"))
    process.endInput()
    expect(await textOf(bytesOf(process.output))).toBe("one two")
    expect(endOf(await process.result)).toEqual(exited(0))
    await process.write(Buffer.from("dropped"))
  })

  test("all of a large output arrives, whatever its reader's pace", async () => {
    const process = guest.processes.start({ onDisconnect: "kill", argv: at.subject.flood(3_000_000) })
    let bytes = 0
    for await (const chunk of process.output) bytes += chunk.bytes.length
    expect(bytes).toBe(3_000_000)
    expect(endOf(await process.result)).toEqual(exited(0))
  })

  test("a signal ends a command, and a kill ends everything", async () => {
    const signalled = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "60"] })
    await signalled.attached
    signalled.signal({ signal: "TERM" })
    expect(endOf(await signalled.result)).toEqual({ exitCode: 143, signal: "TERM" })
    const killed = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "60"] })
    await killed.attached
    killed.kill("test")
    expect(endOf(await killed.result)).toEqual({ exitCode: 137, signal: "KILL" })
  })

  test("a missing program and a missing directory have their own errors", async () => {
    for (const [command, code] of [
      [{ argv: ["no-such-program"] }, "not_found"],
      [{ argv: ["true"], cwd: "/no-such-directory" }, "invalid"],
    ] as const) {
      const process = guest.processes.start({ onDisconnect: "kill", ...command, argv: [...command.argv] })
      expect((await errorOf(() => process.attached)).code).toBe(code)
      expect((await errorOf(() => process.result)).code).toBe(code)
    }
  })

  test("a file is read as it was written", async () => {
    expect(await write("/workspace/below/file", "content", { mode: "0600", size: 7 })).toEqual({
      bytes: 7,
      entries: 1,
    })
    expect(await readFile("below/file")).toBe("content")
    const { name, size, mode, type } = await guest.ask({ op: "statFile", path: "below/file" }, { deadlineMs })
    expect({ name, size, mode, type }).toEqual({ name: "file", size: 7, mode: "0600", type: "file" })
    const download = guest.open({ op: "readFile", path: "/workspace/below/file" })
    expect((await download.file).size).toBe(7)
    expect(await textOf(download.output)).toBe("content")
    expect((await download.result).bytes).toBe(7)
    const part = guest.open({ op: "readFile", path: "/workspace/below/file", offset: 3, limit: 2 })
    expect(await part.file).toEqual(await download.file)
    expect(await textOf(part.output)).toBe("te")
    await guest.ask({ op: "moveFile", from: "below/file", to: "below/moved" }, { deadlineMs })
    const { files, isTruncated } = await guest.ask({ op: "listFiles", path: "below" }, { deadlineMs })
    expect([files.map((file) => file.name), isTruncated]).toEqual([["moved"], false])
  })

  test("errors of files have the same codes", async () => {
    await write("/workspace/errors/file", "content")
    const codes: Record<string, Promise<AppError>> = {
      "no file to read": errorOf(() => guest.open({ op: "readFile", path: "no-such-file" }).result),
      "a directory to read": errorOf(() => guest.open({ op: "readFile", path: "errors" }).result),
      "no file to look at": errorOf(() =>
        guest.ask({ op: "statFile", path: "no-such-file" }, { deadlineMs }),
      ),
      "no directory to list": errorOf(() =>
        guest.ask({ op: "listFiles", path: "no-such-directory" }, { deadlineMs }),
      ),
      "a file to list": errorOf(() => guest.ask({ op: "listFiles", path: "errors/file" }, { deadlineMs })),
      "no file to remove": errorOf(() =>
        guest.ask({ op: "removeFile", path: "no-such-file", recursive: false }, { deadlineMs }),
      ),
      "a full directory to remove": errorOf(() =>
        guest.ask({ op: "removeFile", path: "errors", recursive: false }, { deadlineMs }),
      ),
      "no file to move": errorOf(() =>
        guest.ask({ op: "moveFile", from: "no-such-file", to: "x" }, { deadlineMs }),
      ),
      "another size": errorOf(() => write("errors/short", "content", { size: 8 })),
      "a directory to write": errorOf(() => write("/workspace/errors", "content")),
      "no archive to read": errorOf(() => guest.open({ op: "readArchive", path: "no-such-file" }).result),
      "no session": errorOf(() =>
        guest.processes.signal("no-such-session", { signal: "TERM" }, { deadlineMs }),
      ),
      "no user": errorOf(() => guest.ask({ op: "findOwner", owner: "no-such-user" }, { deadlineMs })),
      "no port": errorOf(() => guest.open({ op: "dial", port: 9 }).connected),
    }
    const found: Record<string, string> = {}
    for (const [name, error] of Object.entries(codes)) found[name] = (await error).code
    expect(found).toEqual({
      "no file to read": "not_found",
      "a directory to read": "invalid",
      "no file to look at": "not_found",
      "no directory to list": "not_found",
      "a file to list": "invalid",
      "no file to remove": "not_found",
      "a full directory to remove": "conflict",
      "no file to move": "not_found",
      "another size": "invalid",
      "a directory to write": "invalid",
      "no archive to read": "not_found",
      "no session": "not_found",
      "no user": "invalid",
      "no port": "unavailable",
    })
    expect(
      (await errorOf(() => guest.ask({ op: "statFile", path: "errors/short" }, { deadlineMs }))).code,
    ).toBe("not_found")
  })

  test("a cancelled upload leaves no file, and a cancelled download ends", async () => {
    const upload = guest.open({ op: "writeFile", path: "/workspace/cancelled", size: 100 })
    await upload.write(Buffer.from("half"))
    upload.close()
    expect((await errorOf(() => upload.result)).code).toBe("unavailable")
    expect((await errorOf(() => guest.ask({ op: "statFile", path: "cancelled" }, { deadlineMs }))).code).toBe(
      "not_found",
    )
    await write("/workspace/large", "x".repeat(3_000_000))
    const download = guest.open({ op: "readFile", path: "large" })
    await download.file
    download.close()
    expect((await errorOf(() => download.result)).code).toBe("unavailable")
    expect((await errorOf(() => textOf(download.output))).code).toBe("unavailable")
  })

  test("a session outlives its client, and shows again what it has shown", async () => {
    const tty = { rows: 24, cols: 80 }
    const start = {
      argv: ["cat"],
      name: "suite",
      tty,
      stdin: true,
      onDisconnect: "keep",
      retainMs: 60_000,
    } as const
    const { id } = (await guest.processes.startDetached({ ...start, argv: ["cat"] }, { deadlineMs })).process
    const known = await guest.processes.list({ deadlineMs })
    expect(known.map(({ name, ended, driven }) => ({ name, ended, driven }))).toEqual([
      { name: "suite", ended: null, driven: false },
    ])
    const taken = guest.processes.attach({ process: "suite", mode: "drive", tty })
    expect(await taken.attached).toMatchObject({ id, name: "suite" })
    await taken.write(Buffer.from("typed\n"))
    await firstOf(bytesOf(taken.output), "typed")
    const taker = guest.processes.attach({ process: id, mode: "drive", tty })
    expect(await taken.result).toEqual({ state: "taken_over" })
    await firstOf(bytesOf(taker.output), "typed")
    taker.leave()
    expect(await taker.result).toEqual({ state: "left" })
    await guest.processes.signal(id, { signal: "KILL", scope: "session" }, { deadlineMs })
    await until(
      "the session ended",
      async () => (await guest.processes.get(id, { deadlineMs })).ended !== null,
    )
  })

  test("the loss of the channel fails everything that is open", async () => {
    const process = guest.processes.start({ onDisconnect: "kill", argv: ["sleep", "60"] })
    const upload = guest.open({ op: "writeFile", path: "lost", size: 100 })
    await process.attached
    await at.host.machines.kill(machine)
    expect((await errorOf(() => process.result)).code).toBe("unavailable")
    expect((await errorOf(() => upload.result)).code).toBe("unavailable")
    expect(
      (await errorOf(() => guest.processes.start({ onDisconnect: "kill", argv: ["true"] }).result)).code,
    ).toBe("unavailable")
    expect((await errorOf(() => guest.ask({ op: "statFile", path: "/" }, { deadlineMs }))).code).toBe(
      "unavailable",
    )
  })
}

function endOf(outcome: ProcessOutcome): { exitCode: number; signal: string | null } {
  if (outcome.state !== "ended") throw new Error(`it is ${outcome.state}`)
  return { exitCode: outcome.ended.exitCode, signal: outcome.ended.signal }
}

function exited(exitCode: number) {
  return { exitCode, signal: null }
}

async function* bytesOf(output: AsyncIterable<OutputChunk>): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of output) yield bytes
}

/** Reads until the text has come. */
async function firstOf(output: AsyncIterable<Uint8Array>, text: string): Promise<void> {
  let shown = ""
  for await (const bytes of output) {
    shown += Buffer.from(bytes).toString()
    if (shown.includes(text)) return
  }
  throw new Error(`"${text}" did not come, but ${JSON.stringify(shown)}`)
}
