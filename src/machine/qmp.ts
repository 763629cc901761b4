/**
 * QEMU's monitor: commands in JSON over a unix socket, one client at a time. QEMU is not trusted: every command has
 * a deadline, and the connection is closed if QEMU sends lines that are too long, meaningless or endless.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Socket, SocketHandler, UnixSocketOptions } from "bun"
import { z } from "zod"
import { connectUnix, sendDescriptor } from "../lib/descriptor-passing.ts"

const lineBytesMax = 1024 * 1024

/** Limit on QEMU's events between two answers: many hours' worth. The next command reconnects. */
const unaskedBytesMax = 8 * 1024 * 1024
/** Events after which a paused machine may run, or the reverse. */
const haltEvents = new Set<unknown>(["STOP", "RESUME", "BLOCK_IO_ERROR"])

/** Limit on QEMU's own message within an error. */
const wordsMax = 300

const Reply = z.looseObject({
  id: z.unknown().optional(),
  return: z.unknown().optional(),
  error: z.unknown().optional(),
  event: z.unknown().optional(),
  data: z.unknown().optional(),
  QMP: z.unknown().optional(),
})

const Shutdown = z.object({ reason: z.string().max(64) }).catch({ reason: "unknown" })

const Refusal = z.object({ desc: z.string() }).catch({ desc: "no reason given" })

type Waiting = {
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
  timer: Timer
  command: string
}

export class Qmp {
  readonly #waiting = new Map<string, Waiting>()
  readonly #greeted = Promise.withResolvers<void>()
  #socket: Socket | undefined
  /** The socket's descriptor, for as long as the connection is not closed. */
  #fd = -1
  #text = ""
  #unaskedBytes = 0
  #nextId = 1
  #haltEvents = 0
  #isClosed = false
  /** Called with QEMU's reason when the guest has ended its machine. */
  onShutdown: (reason: string) => void = () => undefined

  private constructor() {
    this.#greeted.promise.catch(() => undefined)
  }

  static async open(options: { socketPath: string; deadlineMs: number }): Promise<Qmp> {
    const qmp = new Qmp()
    const decoder = new TextDecoder()
    const fd = connectUnix(options.socketPath)
    if (fd === undefined) throw notAnswering(Object.assign(new Error("refused"), { code: "ECONNREFUSED" }))
    qmp.#fd = fd
    const socket: SocketHandler = {
      data: (_socket, bytes) => qmp.#receive(decoder.decode(bytes, { stream: true })),
      close: () => qmp.#fail("the monitor closed"),
      error: (_socket, error) => qmp.#fail(error.message),
    }
    // Bun's types lack this way.
    qmp.#socket = await Bun.connect({ fd, socket } as unknown as UnixSocketOptions).catch(
      (cause: unknown) => {
        throw notAnswering(cause)
      },
    )
    const timer = setTimeout(() => qmp.#fail("the monitor did not greet in time"), options.deadlineMs)
    try {
      await qmp.#greeted.promise
    } finally {
      clearTimeout(timer)
    }
    await qmp.command("qmp_capabilities", {}, options)
    return qmp
  }

  /** `descriptor` goes with the command; QEMU gets a duplicate. */
  command(
    name: string,
    args: Record<string, unknown>,
    options: { deadlineMs: number; descriptor?: number },
  ): Promise<unknown> {
    if (this.#isClosed) return Promise.reject(new AppError("unavailable", "the machine's monitor is closed"))
    const id = `${this.#nextId++}`
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const timer = setTimeout(() => {
      this.#waiting.delete(id)
      reject(new AppError("unavailable", `QEMU did not answer "${name}" within ${options.deadlineMs} ms`))
    }, options.deadlineMs)
    this.#waiting.set(id, { resolve, reject, timer, command: name })
    this.#send(`${JSON.stringify({ execute: name, arguments: args, id })}\n`, options.descriptor)
    return promise
  }

  /** Commands are short and run in sequence, so the kernel's socket buffer holds them. */
  #send(line: string, descriptor: number | undefined): void {
    if (descriptor === undefined) this.#socket?.write(line)
    else if (!sendDescriptor(this.#fd, Buffer.from(line), descriptor))
      this.#fail("it did not take a descriptor")
  }

  /** Counts events that may have paused or resumed the machine. */
  get haltEvents(): number {
    return this.#haltEvents
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  close(): void {
    this.#fail("closed")
  }

  #receive(text: string): void {
    if (this.#isClosed) return
    this.#unaskedBytes += text.length
    if (this.#unaskedBytes > unaskedBytesMax) return this.#fail("the monitor sent too much")
    this.#text += text
    if (this.#text.length > lineBytesMax) return this.#fail("the monitor's line is too long")
    const lines = this.#text.split("\n")
    this.#text = lines.pop() ?? ""
    for (const line of lines) this.#handle(line)
  }

  #handle(line: string): void {
    if (line.trim() === "" || this.#isClosed) return
    const reply = parseReply(line)
    if (!reply) return this.#fail("the monitor sent something that is not a message")
    if (haltEvents.has(reply.event)) this.#haltEvents++
    if (reply.event === "SHUTDOWN") this.onShutdown(Shutdown.parse(reply.data).reason)
    if (reply.QMP !== undefined) return this.#greeted.resolve()
    const waiting = typeof reply.id === "string" ? this.#waiting.get(reply.id) : undefined
    if (!waiting) return
    this.#unaskedBytes = 0
    this.#waiting.delete(String(reply.id))
    clearTimeout(waiting.timer)
    if (reply.error !== undefined) {
      const words = Refusal.parse(reply.error).desc.slice(0, wordsMax)
      waiting.reject(new AppError("internal", `QEMU refused "${waiting.command}": ${words}`))
    } else {
      waiting.resolve(reply.return)
    }
  }

  #fail(reason: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    const error = new AppError("unavailable", `machine monitor: ${reason}`)
    this.#greeted.reject(error)
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer)
      waiting.reject(error)
    }
    this.#waiting.clear()
    this.#socket?.terminate()
  }
}

function notAnswering(cause: unknown): AppError {
  return new AppError("unavailable", "the machine's monitor does not answer", { cause })
}

function parseReply(line: string): z.infer<typeof Reply> | undefined {
  try {
    return Reply.safeParse(JSON.parse(line)).data
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
