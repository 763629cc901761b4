/**
 * The TypeScript client: one typed method per operation of `contract/api.ts`, and a stream for each WebSocket. Every
 * error it throws is an AppError. Replies are trusted, not validated: the daemon made them from the same contract.
 */

import type { Api } from "@bhatti/contract/api"
import type { Endpoint, PathParameter } from "@bhatti/contract/endpoint"
import { AppError } from "@bhatti/contract/errors"
import type { Event, EventLine } from "@bhatti/contract/event"
import type { FileEntry, FileWatch } from "@bhatti/contract/file"
import { limits, truncatedHeader } from "@bhatti/contract/limits"
import type { Version } from "@bhatti/contract/system"
import type { Task, TaskLine } from "@bhatti/contract/task"
import type { SocketTicket } from "@bhatti/contract/ticket"
import type { z } from "zod"
import { type ExecConnection, ExecStream, type ExecStreamStart } from "./exec-stream.ts"
import {
  describes,
  failureOfConnection,
  failureOfReply,
  failureOfResponse,
  hints,
  type UnreachedReason,
  unknownEndpoint,
} from "./failure.ts"
import { type FileChange, followWatch } from "./file-watch.ts"
import { linesOf } from "./lines.ts"
import type { OnNotice } from "./notice.ts"
import { type Reconnection, randomKey } from "./reconnection.ts"
import { fillRoute, type RouteName, routes } from "./routes.ts"
import { runOnce } from "./run-once.ts"
import { ShellStream, type ShellStreamStart, shellWindowBytes } from "./shell-stream.ts"
import { openGlobalSocket, type Socket } from "./socket.ts"

export type ClientOptions = {
  /** The daemon's address, such as `http://localhost:8080`. */
  url: string
  /** The API key, `bht_…`. */
  token?: string | undefined
  /** Replaces the global `fetch`, for example to use a proxy or certificates of your own. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>
  /** Opens a WebSocket with these headers, among them the key. Default: the global `WebSocket`, with a ticket. */
  openSocket?: (url: string, headers: Record<string, string>) => Socket
  /** How commands go on after a lost connection. */
  reconnection?: Reconnection
  /** Called when a sandbox that a stream is connected to is about to be paused or destroyed. */
  onNotice?: OnNotice
  /** Chooses the hint of an error if no daemon was reached. */
  hintFor?: (reason: UnreachedReason) => string | undefined
}

type ParamsOf<E extends Endpoint> = [PathParameter<E["path"]>] extends [never]
  ? unknown
  : { params: Record<PathParameter<E["path"]>, string> }
type QueryOf<E> = E extends { query: infer Query extends z.ZodType }
  ? Record<never, never> extends z.input<Query>
    ? { query?: z.input<Query> }
    : { query: z.input<Query> }
  : unknown
type BodyOf<E> = E extends { body: infer Body extends z.ZodType } ? { body: z.input<Body> } : unknown
/** `bytesCount` announces a stream's size; the daemon rejects a stream of another length and writes nothing. */
type BytesOf<E> = E extends { bodyBytes: true } ? { bytes: Bytes; bytesCount?: number | undefined } : unknown
/** A range of bytes, such as `bytes=0-499`, `bytes=500-` or `bytes=-500`. The answer has status 206 if it is that. */
type RangeOf<E> = E extends { ranges: true } ? { range?: string | undefined } : unknown
type Input<E extends Endpoint> = ParamsOf<E> & QueryOf<E> & BodyOf<E> & BytesOf<E> & RangeOf<E> & CallOptions

type CallOptions = {
  signal?: AbortSignal
  /** Receives the headers of a successful answer. */
  onHeaders?: (headers: Headers) => void
}

/** Bodies that can be sent directly; a stream is sent as it is produced. */
export type Bytes = Uint8Array<ArrayBuffer> | Blob | ReadableStream<Uint8Array> | string

/** If the answer is bytes, the caller reads the response itself. */
type Reply<E extends Endpoint> = E extends { replyBytes: true } ? Response : z.output<E["reply"]>

type Call<E extends Endpoint> =
  Record<never, never> extends Input<E>
    ? (input?: Input<E>) => Promise<Reply<E>>
    : (input: Input<E>) => Promise<Reply<E>>

type SocketName = { [Name in keyof Api]: Api[Name] extends { socket: unknown } ? Name : never }[keyof Api]

export type Client = { readonly [Name in Exclude<keyof Api, SocketName>]: Call<Api[Name]> } & {
  /** Runs a command and streams its input and output. A lost connection is opened again, and the command goes on. */
  execStream(id: string, start: ExecStreamStart, reconnection?: Pick<Reconnection, "forSec">): ExecStream
  /** Attaches to a process that is kept; by default it is watched. */
  processStream(id: string, process: string, query?: ProcessStreamQuery): ExecStream
  /** Opens a terminal in a session of the sandbox. */
  shellStream(id: string, start?: ShellStreamStart): ShellStream
  /** Yields stored events, then new ones until the signal aborts or the daemon ends. */
  followEvents(query: FollowQuery, options?: CallOptions): AsyncGenerator<Event>
  /**
   * Yields the changes in a directory until the signal aborts or the sandbox is destroyed. The first item says that
   * the watch stands. A lost connection is made again without a loss; `lost` says where events are missing.
   */
  followFiles(id: string, directory: WatchedDirectory, options?: CallOptions): AsyncGenerator<FileChange>
  /** Yields the task whenever it has changed, until it has ended. */
  followTask(id: string, options?: CallOptions): AsyncGenerator<Task>
  /** `readFile` with `stat`: describes a file; a link is not followed. */
  statFile(id: string, path: string): Promise<FileEntry>
  /** `readFile` with `ls`: lists a directory. `isTruncated`: it has more entries. */
  listFiles(id: string, path: string): Promise<{ entries: FileEntry[]; isTruncated: boolean }>
}

export type WatchedDirectory = z.input<Api["createWatch"]["body"]>
export type { FileChange } from "./file-watch.ts"

export type ProcessStreamQuery = Omit<z.input<Api["processSocket"]["query"]>, "window">

export type FollowQuery = Omit<z.input<Api["listEvents"]["query"]>, "follow">

/** Operations whose answer is bytes; the compiler checks the list against the contract. */
const byteReplies: ReadonlySet<RouteName> = new Set<ByteReplyName>([
  "readSession",
  "readProcess",
  "readFile",
  "readArchive",
  "exportImage",
])
type ByteReplyName = { [Name in keyof Api]: Api[Name] extends { replyBytes: true } ? Name : never }[keyof Api]

type ExecInput = Input<Api["exec"]>
type StartInput = Input<Api["startProcess"]>

type AnyInput = {
  params?: Record<string, string>
  query?: Record<string, unknown>
  body?: unknown
  bytes?: Bytes
  bytesCount?: number | undefined
  range?: string | undefined
  accept?: string
} & CallOptions

export function connect(options: ClientOptions): Client {
  const base = options.url.replace(/\/+$/, "")
  const send = options.fetch ?? fetch
  const hintFor = options.hintFor ?? ((reason) => hints[reason])
  const authorization: Record<string, string> =
    options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }

  async function request(name: RouteName, input: AnyInput = {}): Promise<Response> {
    const { method, path } = fillRoute(name, input.params)
    const content = input.bytes ?? (input.body === undefined ? undefined : JSON.stringify(input.body))
    const type = input.bytes === undefined ? "application/json" : "application/octet-stream"
    const init: RequestInit & { duplex?: "half" } = {
      method,
      headers: {
        ...authorization,
        ...(content === undefined ? {} : { "content-type": type }),
        ...(input.accept === undefined ? {} : { accept: input.accept }),
        ...(input.range === undefined ? {} : { range: input.range }),
        ...(input.bytesCount === undefined ? {} : { "content-length": String(input.bytesCount) }),
      },
      ...(content === undefined ? {} : { body: content }),
      // Node.js and browsers refuse to send a stream without it.
      ...(content instanceof ReadableStream ? { duplex: "half" } : {}),
      ...(input.signal === undefined ? {} : { signal: input.signal }),
    }
    let response: Response
    try {
      response = await send(base + path + queryString(input.query), init)
    } catch (error) {
      input.signal?.throwIfAborted()
      // An error thrown by the stream being sent surfaces here.
      if (error instanceof AppError) throw error
      throw failureOfConnection(error, base, hintFor)
    }
    if (!response.ok) throw await unlessUnknown(name, await failureOfResponse(response, base))
    input.onHeaders?.(response.headers)
    return response
  }

  /** A daemon that is older than this client lacks endpoints; its description lists what it has. */
  async function unlessUnknown(name: RouteName, error: AppError): Promise<AppError> {
    if (error.code !== "not_found" || error.subject !== undefined || error.reason !== undefined) return error
    try {
      const response = await send(`${base}/openapi.json`, { headers: authorization })
      return describes(await response.json(), name) ? error : unknownEndpoint(name, base)
    } catch {
      return error
    }
  }

  async function call(name: RouteName, input: AnyInput = {}): Promise<unknown> {
    const response = await request(name, input)
    if (byteReplies.has(name)) return response
    return response.status === 204 ? null : await readJson(response)
  }

  async function readJson(response: Response): Promise<unknown> {
    try {
      return await response.json()
    } catch (error) {
      throw failureOfReply(error, base)
    }
  }

  async function* followEvents(query: FollowQuery, options: CallOptions = {}): AsyncGenerator<Event> {
    const response = await request("listEvents", { ...options, query: { ...query, follow: "true" } })
    try {
      for await (const line of linesOf(response)) {
        if (line === "") continue
        const event = JSON.parse(line) as EventLine
        if (!("code" in event)) yield event
        else throw new AppError("unavailable", event.data, event.hint === null ? {} : { hint: event.hint })
      }
    } catch (error) {
      options.signal?.throwIfAborted()
      if (error instanceof AppError) throw error
      throw failureOfConnection(error, base, hintFor)
    }
  }

  async function* followTask(id: string, options: CallOptions = {}): AsyncGenerator<Task> {
    const response = await request("readTask", { ...options, params: { id } })
    try {
      for await (const line of linesOf(response)) {
        if (line === "") continue
        const task = JSON.parse(line) as TaskLine
        if (!("code" in task)) yield task
        else throw new AppError("unavailable", task.data, task.hint === null ? {} : { hint: task.hint })
      }
    } catch (error) {
      options.signal?.throwIfAborted()
      if (error instanceof AppError) throw error
      throw failureOfConnection(error, base, hintFor)
    }
  }

  const followFiles = (id: string, directory: WatchedDirectory, options: CallOptions = {}) =>
    followWatch(
      {
        create: async () =>
          (await call("createWatch", { ...options, params: { id }, body: directory })) as FileWatch,
        stream: async (watch, after) =>
          linesOf(
            await request("readWatch", {
              ...options,
              params: { id, watch },
              query: { after },
              accept: "application/x-ndjson",
            }),
          ),
        remove: (watch) => call("deleteWatch", { params: { id, watch } }),
        failureOf: (error) => failureOfConnection(error, base, hintFor),
      },
      options.signal,
    )

  async function describeFile(
    id: string,
    query: Record<string, string>,
  ): Promise<{ value: unknown; headers: Headers }> {
    const response = (await call("readFile", { params: { id }, query })) as Response
    return { value: await readJson(response), headers: response.headers }
  }

  /** A refused WebSocket hides the daemon's answer, so a plain request finds the reason. */
  async function whyRefused(id: string): Promise<AppError> {
    try {
      await call("getSandbox", { params: { id } })
    } catch (error) {
      return error instanceof AppError ? error : new AppError("internal", "ask the daemon", { cause: error })
    }
    return new AppError("unavailable", `the daemon at ${base} refused a stream to sandbox "${id}"`, {
      hint: hintFor("no_stream"),
    })
  }

  function openSocket(url: string): Socket | Promise<Socket> {
    if (options.openSocket !== undefined) return options.openSocket(url, authorization)
    return openGlobalSocket(url, async () => {
      const { ticket } = (await call("createSocketTicket")) as SocketTicket
      return ticket
    })
  }

  function socketUrl(
    name: SocketName,
    params: Record<string, string>,
    query?: Record<string, unknown>,
  ): string {
    return base.replace(/^http/, "ws") + fillRoute(name, params).path + queryString(query)
  }

  async function hasFeature(name: "exec_key" | "input_writer"): Promise<boolean> {
    const { features = [] } = (await call("version")) as Partial<Version>
    return features.includes(name)
  }
  const knowsKeys = () => hasFeature("exec_key")

  function execConnection(id: string, open: ExecConnection["open"]): ExecConnection {
    return { open, whyRefused: () => whyRefused(id), knowsKeys }
  }

  function openProcess(
    params: { id: string; process: string },
    query: ProcessStreamQuery,
  ): ExecConnection["open"] {
    const writer = randomKey()
    // Asked once: a driver that took its name later would not be told of its earlier input.
    let isNamed: Promise<boolean> | undefined
    return async (received) => {
      if (query.mode === "drive") isNamed ??= hasFeature("input_writer").catch(() => false)
      const named = (await isNamed) ? { writer } : {}
      return openSocket(
        socketUrl("processSocket", params, { ...named, ...query, ...received, window: shellWindowBytes }),
      )
    }
  }

  /** Sent again with the same key if its connection is lost. A command with a signal ends when that aborts. */
  async function exec(input: ExecInput): Promise<unknown> {
    if (input.signal !== undefined || input.body.key !== undefined) return call("exec", input)
    const forSec = options.reconnection?.forSec
    const grace = forSec === undefined ? {} : { grace_sec: Math.min(forSec, limits.execGraceSecMax) }
    return runOnce(options.reconnection ?? {}, {
      send: (keyed) =>
        call("exec", { ...input, body: keyed ? { ...input.body, ...grace, ...keyed } : input.body }),
      knowsKeys,
    })
  }

  async function startProcess(input: StartInput): Promise<unknown> {
    if (input.body.key !== undefined) return call("startProcess", input)
    try {
      return await runOnce(options.reconnection ?? {}, {
        send: (keyed) => call("startProcess", { ...input, body: { ...input.body, ...keyed } }),
        knowsKeys,
      })
    } catch (error) {
      if (!(error instanceof AppError && error.reason === "fate_unknown")) throw error
      throw error.but({ hint: "it is unknown whether the process was started; look for it with bhatti ps" })
    }
  }

  const calls = Object.keys(routes).map((name) => [
    name,
    (input?: AnyInput) => call(name as RouteName, input),
  ])
  const extras: Omit<Client, RouteName> = {
    followEvents,
    followFiles,
    followTask,
    execStream: (id, start, reconnection) =>
      new ExecStream(
        execConnection(id, () => openSocket(socketUrl("execSocket", { id }))),
        {
          start,
          window: limits.execKeyedWindowBytes,
          reconnection: { ...options.reconnection, ...reconnection },
          onNotice: options.onNotice,
        },
      ),
    processStream: (id, process, query = {}) =>
      new ExecStream(execConnection(id, openProcess({ id, process }, query)), {
        start: undefined,
        isWatching: query.mode !== "drive",
        window: shellWindowBytes,
        reconnection: options.reconnection ?? {},
        onNotice: options.onNotice,
      }),
    shellStream: (id, start = {}) => {
      const url = socketUrl("shellSocket", { id }, { window: shellWindowBytes, ...start })
      return new ShellStream({ open: () => openSocket(url), whyRefused: () => whyRefused(id) }, options)
    },
    statFile: async (id, path) => (await describeFile(id, { path, stat: "true" })).value as FileEntry,
    async listFiles(id, path) {
      const { value, headers } = await describeFile(id, { path, ls: "true" })
      return { entries: value as FileEntry[], isTruncated: headers.has(truncatedHeader) }
    },
  }
  return { ...Object.fromEntries(calls), ...extras, exec, startProcess } as Client
}

function queryString(query: Record<string, unknown> = {}): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    const values = Array.isArray(value) ? value : [value]
    for (const one of values) if (one !== undefined) search.append(name, String(one))
  }
  return search.size === 0 ? "" : `?${search}`
}
