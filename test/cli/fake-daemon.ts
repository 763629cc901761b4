/**
 * A daemon without machines: speaks the contract on a loopback port, keeps sandboxes in memory and plays a few programs
 * through the exec socket with its flow control. It records what it was sent.
 */

import type { Server, ServerWebSocket } from "bun"
import { type ErrorCode, errorStatus } from "../../src/contract/errors.ts"
import { ExecClientMessage, type ExecServerMessage, ExecStart } from "../../src/contract/exec.ts"
import { limits } from "../../src/contract/limits.ts"
import { CreateSandbox, Sandbox } from "../../src/contract/sandbox.ts"
import type { ErrorBody } from "../../src/contract/system.ts"
import { FakeShell } from "./fake-shell.ts"

export const testKey = `bht_${"5".repeat(64)}`

const encoder = new TextEncoder()

/** What a socket talks to. */
export interface SocketPlay {
  opened(socket: ServerWebSocket<unknown>): void
  receive(socket: ServerWebSocket<unknown>, message: string | Buffer): void
  closed(): void
}

export type Answer = (request: Request) => Response | Promise<Response>

export class FakeDaemon implements Disposable {
  readonly url: string
  readonly key = testKey
  readonly sandboxes = new Map<string, Sandbox>()
  readonly runs: FakeRun[] = []
  readonly shells: FakeShell[] = []
  /** The last body of `POST /sandboxes`. */
  created: CreateSandbox | undefined
  /** Answers of a test's own, by method and decoded path. */
  readonly answers = new Map<string, Answer>()
  /** Method and path of every request, in order. */
  readonly requests: string[] = []
  /** Answers `POST /sandboxes` with this error. */
  createError: { code: ErrorCode; message: string; hint: string | null } | undefined
  /** Answers everything with this. */
  rawAnswer: (() => Response) | undefined
  readonly #server: Server<{ play: SocketPlay }>

  constructor(options: { port?: number; tls?: { cert: string; key: string } } = {}) {
    this.#server = Bun.serve<{ play: SocketPlay }>({
      hostname: "127.0.0.1",
      port: options.port ?? 0,
      ...(options.tls && { tls: options.tls }),
      fetch: (request, server) => this.#answer(request, server),
      websocket: {
        perMessageDeflate: false,
        open: (socket) => socket.data.play.opened(socket),
        message: (socket, message) => socket.data.play.receive(socket, message),
        close: (socket) => socket.data.play.closed(),
      },
    })
    this.url = `${options.tls ? "https" : "http"}://127.0.0.1:${this.#server.port}`
  }

  get lastRun(): FakeRun {
    const run = this.runs.at(-1)
    if (run === undefined) throw new Error("no command was run")
    return run
  }

  get lastShell(): FakeShell {
    const shell = this.shells.at(-1)
    if (shell === undefined) throw new Error("no shell was opened")
    return shell
  }

  addSandbox(name: string, fields: Partial<Sandbox> = {}): Sandbox {
    const number = (this.sandboxes.size + 1).toString(16).padStart(16, "0")
    const sandbox = Sandbox.parse({
      id: `sb_${number}`,
      name,
      status: "running",
      status_reason: null,
      thermal: "hot",
      held: null,
      image: "minimal",
      cpus: 1,
      memory_mb: 512,
      disk_size_mb: 8192,
      ip: null,
      net_policy: { default: "public", allow_hosts: [], allow_cidrs: [] },
      keep_hot: false,
      on_boot: false,
      allow_cold: true,
      warm_after: null,
      cold_after: null,
      labels: {},
      urls: [],
      created_by: "usr_00000001",
      created_at: "2026-01-02T03:04:05.000Z",
      ...fields,
    })
    this.sandboxes.set(name, sandbox)
    return sandbox
  }

  [Symbol.dispose](): void {
    void this.#server.stop(true)
  }

  #list(wanted: string[]): Sandbox[] {
    return [...this.sandboxes.values()].filter(({ labels }) =>
      wanted.every((label) => Object.entries(labels).some(([key, value]) => label === `${key}=${value}`)),
    )
  }

  async #answer(request: Request, server: Server<{ play: SocketPlay }>): Promise<Response | undefined> {
    const url = new URL(request.url)
    this.requests.push(`${request.method} ${url.pathname}`)
    if (this.rawAnswer !== undefined) return this.rawAnswer()
    if (request.headers.get("authorization") !== `Bearer ${testKey}`)
      return failure("unauthenticated", "the API key is not valid")
    const answer = this.answers.get(`${request.method} ${decodeURIComponent(url.pathname)}`)
    if (answer !== undefined) return await answer(request)
    const [, collection, nameOrId, ...action] = url.pathname.split("/").map(decodeURIComponent)
    if (collection === "version") return Response.json(fakeVersion)
    if (collection !== "sandboxes") return failure("not_found", `nothing is at ${url.pathname}`)
    if (nameOrId === undefined)
      return request.method === "GET"
        ? Response.json(this.#list(url.searchParams.getAll("label")))
        : await this.#create(request)
    if (action.join("/") === "exec/ws") {
      const run = new FakeRun({ isSandboxThere: this.sandboxes.has(nameOrId), sandbox: nameOrId })
      this.runs.push(run)
      return upgraded(server.upgrade(request, { data: { play: run } }))
    }
    const sandbox =
      this.sandboxes.get(nameOrId) ?? [...this.sandboxes.values()].find((one) => one.id === nameOrId)
    if (sandbox === undefined) return noSandbox(nameOrId)
    if (action.join("/") === "ws") {
      const shell = new FakeShell(url.searchParams)
      this.shells.push(shell)
      return upgraded(server.upgrade(request, { data: { play: shell } }))
    }
    if (action.join("/") === "exec") return Response.json(await bufferedExec(request))
    if (request.method === "DELETE") {
      this.sandboxes.delete(sandbox.name)
      return Response.json({ status: "destroyed" })
    }
    return Response.json(sandbox)
  }

  async #create(request: Request): Promise<Response> {
    if (this.createError)
      return failure(this.createError.code, this.createError.message, this.createError.hint)
    this.created = CreateSandbox.parse(await request.json())
    const { name = "generated", image = "minimal", cpus = 1, labels } = this.created
    const { memory_mb = 512, disk_size_mb = 8192 } = this.created
    const existing = this.sandboxes.get(name)
    if (existing !== undefined)
      return this.created.if_not_exists
        ? Response.json(existing, { headers: { "x-bhatti-existing": "true" } })
        : failure("conflict", `a sandbox named "${name}" exists already`)
    const sandbox = this.addSandbox(name, { image, cpus, memory_mb, disk_size_mb, labels })
    return Response.json(sandbox, { status: 201 })
  }
}

export const fakeVersion = {
  version: "9.9.9",
  accelerator: "tcg",
  accelerator_reason: "no /dev/kvm",
  warnings: ["software emulation is no security boundary"],
}

function upgraded(isDone: boolean): Response | undefined {
  return isDone ? undefined : failure("invalid", "not a WebSocket")
}

export function failure(code: ErrorCode, message: string, hint: string | null = null): Response {
  const body: ErrorBody = {
    error: message,
    code,
    message,
    hint,
    retryable: code === "unavailable",
    request_id: "req_test",
  }
  return Response.json(body, { status: errorStatus[code] })
}

function noSandbox(name: string): Response {
  return failure("not_found", `no sandbox named "${name}"`, "bhatti list")
}

async function bufferedExec(request: Request): Promise<unknown> {
  const { cmd, stdin = "" } = (await request.json()) as { cmd: string[]; stdin?: string }
  const stdout = cmd[0] === "cat" ? stdin : `${cmd.slice(1).join(" ")}\n`
  const exit_code = cmd[0] === "exit" ? Number(cmd[1]) : 0
  return { exit_code, signal: null, timed_out: false, stdout, stderr: "", truncated: false }
}

/** One command of the exec socket. */
export class FakeRun implements SocketPlay {
  start: ExecStart | undefined
  readonly signals: string[] = []
  readonly sizes: { rows: number; cols: number }[] = []
  input = new Uint8Array(0)
  isClosed = false
  unacknowledgedMax = 0
  sentBytes = 0
  readonly #isSandboxThere: boolean
  readonly #sandbox: string
  #inputBytes = 0
  #isInputEnded = false
  #unacknowledged = 0
  #isEnded = false
  #wake: () => void = () => {}

  constructor(options: { isSandboxThere: boolean; sandbox: string }) {
    this.#isSandboxThere = options.isSandboxThere
    this.#sandbox = options.sandbox
  }

  get inputBytes(): number {
    return this.#inputBytes
  }

  opened(): void {}

  closed(): void {
    this.isClosed = true
    this.#wake()
  }

  receive(socket: ServerWebSocket<unknown>, message: string | Buffer): void {
    if (typeof message !== "string") return this.#receiveInput(socket, message)
    const value: unknown = JSON.parse(message)
    if (this.start === undefined) {
      this.start = ExecStart.parse(value)
      void this.#play(socket, this.start)
      return
    }
    const control = ExecClientMessage.parse(value)
    if (control.type === "ack") this.#unacknowledged -= control.bytes
    if (control.type === "stdin_end") this.#isInputEnded = true
    if (control.type === "signal") this.signals.push(control.signal)
    if (control.type === "resize") this.sizes.push({ rows: control.rows, cols: control.cols })
    if (this.#unacknowledged < 0) throw new Error("more was acknowledged than sent")
    this.#wake()
  }

  #receiveInput(socket: ServerWebSocket<unknown>, bytes: Buffer): void {
    this.#inputBytes += bytes.length
    if (this.input.length < 65_536) this.input = new Uint8Array(Buffer.concat([this.input, bytes]))
    send(socket, { type: "ack", bytes: bytes.length })
    this.#wake()
  }

  /** Resolves at the next thing the client does. */
  async #change(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    await promise
  }

  async #output(socket: ServerWebSocket<unknown>, channel: 1 | 2, bytes: Uint8Array): Promise<void> {
    const window = this.start?.window ?? Number.POSITIVE_INFINITY
    while (this.#unacknowledged + bytes.length > window && !this.isClosed) await this.#change()
    if (this.isClosed) return
    const frame = new Uint8Array(1 + bytes.length)
    frame[0] = channel
    frame.set(bytes, 1)
    this.#unacknowledged += bytes.length
    this.sentBytes += bytes.length
    this.unacknowledgedMax = Math.max(this.unacknowledgedMax, this.#unacknowledged)
    socket.sendBinary(frame)
  }

  #end(socket: ServerWebSocket<unknown>, message: ExecServerMessage): void {
    if (this.#isEnded) return
    this.#isEnded = true
    send(socket, message)
    socket.close()
  }

  #exit(socket: ServerWebSocket<unknown>, code: number, signal: string | null = null): void {
    this.#end(socket, { type: "exit", exit_code: code, signal, timed_out: false })
  }

  async #play(socket: ServerWebSocket<unknown>, start: ExecStart): Promise<void> {
    if (!this.#isSandboxThere) {
      const message = `no sandbox named "${this.#sandbox}"`
      return this.#end(socket, { type: "error", code: "not_found", message, hint: "bhatti list" })
    }
    const [program = "", ...args] = start.cmd
    // A sandbox that takes long to wake.
    while (program === "waking" && !this.isClosed) await this.#change()
    send(socket, { type: "started", pid: 42 })
    const say = (channel: 1 | 2, text: string) => this.#output(socket, channel, encoder.encode(text))
    switch (program) {
      case "echo":
        await say(1, `${args.join(" ")}\n`)
        return this.#exit(socket, 0)
      case "exit":
        return this.#exit(socket, Number(args[0]))
      case "killed":
        return this.#exit(socket, 137, "KILL")
      case "both":
        await say(1, "out 1\n")
        await say(2, "err 1\n")
        await say(1, "out 2\n")
        return this.#exit(socket, 0)
      case "flood":
        return await this.#flood(socket, Number(args[0]))
      case "cat":
        return await this.#cat(socket)
      case "count":
        while (!this.#isInputEnded && !this.isClosed) await this.#change()
        await say(1, `${this.#inputBytes}\n`)
        return this.#exit(socket, 0)
      case "slow":
        return await this.#slow(socket)
      case "sleep":
        return await this.#untilSignal(socket, ["INT", "TERM", "KILL"])
      case "ready":
        await say(1, "ready\n")
        return await this.#untilSignal(socket, ["INT", "TERM", "KILL"])
      case "tidy":
        await say(1, "ready\n")
        while (this.signals.length === 0 && !this.isClosed) await this.#change()
        await this.released.promise
        return this.#exit(socket, 7)
      case "stubborn":
        await say(1, "ready\n")
        return await this.#untilSignal(socket, ["KILL"])
      case "polite":
        await say(1, "ready\n")
        while (!this.signals.includes("INT") && !this.isClosed) await this.#change()
        await say(1, "cleaning up\n")
        return this.#exit(socket, 7)
      case "terminal":
        return await this.#terminal(socket)
      case "alternate":
        await say(1, "\x1b[?1049h\x1b[?25l")
        return socket.close()
      case "drop":
        return socket.terminate()
      case "babble":
        socket.sendText("no JSON at all")
        return
      case "late":
        return this.#end(socket, { type: "exit", exit_code: 137, signal: "KILL", timed_out: true })
      case "refuse":
        return this.#end(socket, {
          type: "error",
          code: args[0] ?? "internal",
          message: `cannot run ${args[1]}`,
          hint: null,
        })
      default:
        return this.#end(socket, {
          type: "error",
          code: "not_found",
          message: `no program named "${program}" in the sandbox`,
          hint: null,
        })
    }
  }

  async #flood(socket: ServerWebSocket<unknown>, bytes: number): Promise<void> {
    const piece = new Uint8Array(32_768).map((_, index) => 97 + (index % 26))
    for (let left = bytes; left > 0 && !this.isClosed; left -= piece.length)
      await this.#output(socket, 1, left < piece.length ? piece.subarray(0, left) : piece)
    this.#exit(socket, 0)
  }

  async #cat(socket: ServerWebSocket<unknown>): Promise<void> {
    let sent = 0
    while (!this.isClosed) {
      if (sent < this.input.length) {
        const bytes = this.input.subarray(sent)
        sent = this.input.length
        await this.#output(socket, 1, bytes)
      } else if (this.#isInputEnded) return this.#exit(socket, 0)
      else await this.#change()
    }
  }

  /** One line now, the next when the test says so. */
  async #slow(socket: ServerWebSocket<unknown>): Promise<void> {
    await this.#output(socket, 1, encoder.encode("first\n"))
    await this.released.promise
    await this.#output(socket, 1, encoder.encode("second\n"))
    this.#exit(socket, 0)
  }
  readonly released = Promise.withResolvers<void>()

  async #untilSignal(socket: ServerWebSocket<unknown>, fatal: readonly string[]): Promise<void> {
    for (;;) {
      const signal = this.signals.find((one) => fatal.includes(one))
      if (signal !== undefined) return this.#exit(socket, 128 + (signalNumbers[signal] ?? 0), signal)
      if (this.isClosed) return
      await this.#change()
    }
  }

  /** Echoes keys as hexadecimal and tells every resize; `q` ends it. */
  async #terminal(socket: ServerWebSocket<unknown>): Promise<void> {
    const tell = (text: string) => this.#output(socket, 1, encoder.encode(`${text}\r\n`))
    await tell(`size ${this.start?.tty?.rows}x${this.start?.tty?.cols} ${this.start?.tty?.term}`)
    let sizesTold = 0
    let keysTold = 0
    while (!this.isClosed) {
      const size = this.sizes[sizesTold]
      const key = this.input[keysTold]
      if (size !== undefined) {
        sizesTold++
        await tell(`resized ${size.rows}x${size.cols}`)
      } else if (key !== undefined) {
        keysTold++
        await tell(`key ${key.toString(16)}`)
        if (key === 0x71) return this.#exit(socket, 5)
      } else await this.#change()
    }
  }
}

const signalNumbers: Record<string, number> = { INT: 2, TERM: 15, KILL: 9 }

function send(socket: ServerWebSocket<unknown>, message: ExecServerMessage): void {
  socket.sendText(JSON.stringify(message))
}

export const windowBytes = limits.execStreamWindowBytes
