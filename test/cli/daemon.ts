/**
 * The daemon that the command line is tested against: the real front, application, core and store, the latter in
 * memory, on a fake host. It notes what clients send and how their WebSockets' flow control goes; nothing of what it
 * answers is its own.
 */

import { RateLimits } from "@bhatti/contract/config"
import { ExecStart } from "@bhatti/contract/exec"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { ShellQuery } from "@bhatti/contract/session"
import type { ServerWebSocket } from "bun"
import type { Core } from "../../src/core/core.ts"
import type { App } from "../../src/http/app.ts"
import type { SocketSession, SocketState } from "../../src/http/context.ts"
import type { FakeHost, Held } from "../support/fake-host.ts"
import type { FakeProcess } from "../support/fake-process.ts"
import { type Answer, type HttpAppOptions, openHttpApp } from "../support/http-app.ts"

const unlimited = { burst: 1_000_000, per_minute: 60_000_000 }
const notedBytesMax = 1024 * 1024
/** Marks what the test itself asks, which is not noted. */
const ownRequestId = "the-test-itself"

/** A client's request, with its body as far as it arrived. */
export type Sent = {
  method: string
  path: string
  query: Record<string, string>
  headers: Headers
  text: string
}

export class Daemon implements AsyncDisposable {
  readonly url: string
  readonly key: string
  readonly core: Core
  readonly host: FakeHost
  readonly sent: Sent[] = []
  /** Commands are refused as by a proxy whose daemon is away. */
  isAway = false
  readonly execs: ExecTap[] = []
  readonly shells: ShellTap[] = []
  readonly #holds = new Map<string, { reach: () => void; released: Promise<void> }>()
  readonly #answerHolds = new Map<string, { reach: () => void; released: Promise<void> }>()
  readonly #app: Awaited<ReturnType<typeof openHttpApp>>

  private constructor(app: Awaited<ReturnType<typeof openHttpApp>>) {
    this.#app = app
    this.url = app.url
    this.key = app.key
    this.core = app.core
    this.host = app.host
  }

  static async start(options: HttpAppOptions = {}): Promise<Daemon> {
    let own: Daemon | undefined
    const app = await openHttpApp({
      rateLimits: RateLimits.parse({ create: unlimited, exec: unlimited, other: unlimited }),
      wrapApp: (app) => (request, body, upgrade) =>
        own?.note(app, request, body, upgrade) ?? app(request, body),
      ...options,
    })
    own = new Daemon(app)
    return own
  }

  /** Method and path of every request, in order. */
  get requests(): string[] {
    return this.sent.map(({ method, path }) => `${method} ${path}`)
  }

  /** Clients' connections that are open now. */
  get connections(): number {
    return this.#app.connections()
  }

  /** JSON of the bodies that were sent there. */
  bodies(route: string): unknown[] {
    return this.#sentTo(route).map(({ text }) => JSON.parse(text))
  }

  queries(route: string): Record<string, string>[] {
    return this.#sentTo(route).map(({ query }) => query)
  }

  /** Lets the next request of that method and path wait before the application has it, or its answer goes out. */
  hold(route: string, where: "request" | "answer" = "request"): Held {
    const reached = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    const holds = where === "request" ? this.#holds : this.#answerHolds
    holds.set(route, { reach: reached.resolve, released: released.promise })
    return { reached: reached.promise, release: released.resolve }
  }

  get lastExec(): ExecTap {
    return last(this.execs, "command was run")
  }

  get lastShell(): ShellTap {
    return last(this.shells, "shell was opened")
  }

  get lastProcess(): FakeProcess {
    return last(this.host.processes, "command was started")
  }

  /** The real answer to a request of the test's own. */
  async call(method: string, path: string, body?: unknown): Promise<Answer> {
    return this.#app.call(method, path, body, { requestId: ownRequestId })
  }

  async sandbox(name: string, fields: Record<string, unknown> = {}): Promise<Sandbox> {
    const { status, body, text } = await this.call("POST", "/sandboxes", { name, ...fields })
    if (status !== 201) throw new Error(`no sandbox "${name}": ${text}`)
    return body as Sandbox
  }

  /** Names of the sandboxes that there are. */
  async names(): Promise<string[]> {
    return (await this.core.store.sandboxes.listOnHost()).map(({ name }) => name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#app[Symbol.asyncDispose]()
  }

  async note(app: App, request: Request, body: AsyncIterable<Uint8Array>, upgrade: Parameters<App>[2]) {
    if (request.headers.get("x-request-id") === ownRequestId) return app(request, body, upgrade)
    const { pathname, searchParams } = new URL(request.url)
    const sent: Sent = {
      method: request.method,
      path: pathname,
      query: Object.fromEntries(searchParams),
      headers: request.headers,
      text: "",
    }
    this.sent.push(sent)
    if (this.isAway && pathname.endsWith("/exec/ws"))
      return { response: new Response(null, { status: 503 }), bytes: undefined }
    const tapped = (state: SocketState) => {
      if (pathname.includes("/processes/")) return upgrade?.(state) ?? false
      const tap = pathname.endsWith("/exec/ws")
        ? this.#noteExec(state.session)
        : this.#noteShell(state.session, sent.query)
      return upgrade?.({ ...state, session: tap }) ?? false
    }
    const route = `${request.method} ${pathname}`
    const hold = this.#holds.get(route)
    this.#holds.delete(route)
    hold?.reach()
    await hold?.released
    const answer = await app(request, noted(body, sent), upgrade && tapped)
    const answerHold = this.#answerHolds.get(route)
    this.#answerHolds.delete(route)
    answerHold?.reach()
    await answerHold?.released
    return answer
  }

  #noteExec(session: SocketSession): Tap {
    const tap = new ExecTap(session)
    this.execs.push(tap)
    return tap
  }

  #noteShell(session: SocketSession, query: unknown): Tap {
    const tap = new ShellTap(session, ShellQuery.parse(query))
    this.shells.push(tap)
    return tap
  }

  #sentTo(route: string): Sent[] {
    return this.sent.filter(({ method, path }) => `${method} ${decodeURIComponent(path)}` === route)
  }
}

async function* noted(body: AsyncIterable<Uint8Array>, sent: Sent): AsyncGenerator<Uint8Array> {
  const decoder = new TextDecoder()
  for await (const bytes of body) {
    if (sent.text.length < notedBytesMax) sent.text += decoder.decode(bytes, { stream: true })
    yield bytes
  }
}

function last<T>(all: T[], what: string): T {
  const found = all.at(-1)
  if (found === undefined) throw new Error(`no ${what}`)
  return found
}

type Socket = ServerWebSocket<SocketState>
type Control = { type: string; bytes?: number; signal?: string }

/** Stands between a WebSocket and what answers it, and counts. */
abstract class Tap implements SocketSession {
  readonly signals: string[] = []
  isClosed = false
  unacknowledgedMax = 0
  sentBytes = 0
  #unacknowledged = 0
  readonly #session: SocketSession
  #socket: Socket | undefined
  #seen: Socket | undefined

  constructor(session: SocketSession) {
    this.#session = session
  }

  /** Bytes of output in a message that goes to the client. */
  protected abstract outputOf(message: Uint8Array): number
  /** Text that the client has sent; false: it was no control. */
  protected abstract isControl(text: string): boolean

  onOpen(socket: Socket): void {
    this.#session.onOpen?.(this.#through(socket))
  }

  onMessage(socket: Socket, message: string | Buffer): void {
    const through = this.#through(socket)
    if (typeof message === "string" && this.isControl(message)) this.#control(JSON.parse(message))
    this.#session.onMessage(through, message)
  }

  onDrain(): void {
    this.#session.onDrain()
  }

  fail(socket: Socket, error: unknown): void {
    this.#session.fail(this.#through(socket), error)
  }

  onClose(): void {
    this.isClosed = true
    this.#session.onClose()
  }

  /** Cuts the connection, as the end of the daemon does. */
  cut(): void {
    this.#socket?.terminate()
  }

  /** Tells the client something that the daemon never tells. */
  babble(text: string): void {
    this.#socket?.sendText(text)
  }

  #control({ type, bytes = 0, signal = "" }: Control): void {
    if (type === "signal") this.signals.push(signal)
    if (type !== "ack") return
    this.#unacknowledged -= bytes
    if (this.#unacknowledged < 0) throw new Error("more was acknowledged than sent")
  }

  /** The socket as what answers it sees it. */
  #through(socket: Socket): Socket {
    this.#socket = socket
    this.#seen ??= new Proxy(socket, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target)
        if (typeof value !== "function") return value
        if (name !== "sendBinary") return value.bind(target)
        return (message: Uint8Array) => {
          this.#count(this.outputOf(message))
          return value.call(target, message)
        }
      },
    })
    return this.#seen
  }

  #count(bytes: number): void {
    this.sentBytes += bytes
    this.#unacknowledged += bytes
    this.unacknowledgedMax = Math.max(this.unacknowledgedMax, this.#unacknowledged)
  }
}

class ExecTap extends Tap {
  start: ExecStart | undefined

  protected outputOf(message: Uint8Array): number {
    return message.length - 1
  }

  protected isControl(text: string): boolean {
    if (this.start !== undefined) return true
    this.start = ExecStart.parse(JSON.parse(text))
    return false
  }
}

class ShellTap extends Tap {
  readonly query: ShellQuery

  constructor(session: SocketSession, query: ShellQuery) {
    super(session)
    this.query = query
  }

  protected outputOf(message: Uint8Array): number {
    return message.length
  }

  protected isControl(text: string): boolean {
    return text.startsWith("{")
  }
}
