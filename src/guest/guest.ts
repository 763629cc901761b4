/** The operations of one guest, over its connection. */

import { AppError } from "@bhatti/contract/errors"
import type {
  GuestAnswer,
  GuestCommand,
  GuestOpening,
  GuestOpenings,
  GuestQuestion,
  GuestQuestions,
  SessionNotice,
  SessionRecord,
  SessionStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { GuestChannel } from "./channel.ts"
import { Connection, dialRequest } from "./dial.ts"
import { Download, fileRequests, Transfer } from "./files.ts"
import { WireError } from "./frame.ts"
import { requests } from "./message.ts"
import type { Stream } from "./operation.ts"
import { Process } from "./process.ts"
import { type Moment, questions, requestOf } from "./questions.ts"
import {
  parseNotice,
  parseSessions,
  parseStartedSession,
  Session,
  SessionOutput,
  sessionRequests,
} from "./session.ts"

const entropyBytes = 64
/** Limit on reported ends of sessions per connection; more are useless. */
const noticesMax = 1000

/** Connects to the guest's socket and sends the preamble immediately. Requests may follow before the guest answers. */
export async function openGuest(options: { socketPath: string; signal?: AbortSignal }): Promise<Guest> {
  const guest = new Guest()
  try {
    options.signal?.throwIfAborted()
    await Bun.connect({ unix: options.socketPath, socket: guest.socketListeners() })
  } catch (cause) {
    throw new AppError("unavailable", "cannot connect to the guest's channel", { cause })
  }
  const abort = () => guest.close()
  options.signal?.addEventListener("abort", abort, { once: true })
  void guest.closed.then(() => options.signal?.removeEventListener("abort", abort))
  if (options.signal?.aborted) guest.close()
  return guest
}

type Streams = {
  readFile: Download
  writeFile: Transfer
  readArchive: Transfer
  writeArchive: Transfer
  dial: Connection
}

export class Guest extends GuestChannel {
  ask<Op extends keyof GuestQuestions>(
    question: GuestQuestion<Op>,
    { deadlineMs }: { deadlineMs: number },
  ): Promise<GuestAnswer<Op>> {
    const { isGlance, read } = questions[question.op]
    return this.request(requestOf(question, thisMoment()), read(), { deadlineMs, isGlance })
  }

  open<Op extends keyof GuestOpenings>(opening: GuestOpening<Op>): Streams[Op] {
    return this.#openings[opening.op](opening)
  }

  readonly #openings: { [Op in keyof GuestOpenings]: (opening: GuestOpenings[Op]) => Streams[Op] } = {
    readFile: (file) =>
      this.beginReading(
        (shared) => fileRequests.readFile({ ...file, shared }),
        (id, link) => new Download(id, link),
      ),
    writeFile: (file) =>
      this.begin(
        fileRequests.writeFile(file),
        (id, link) => new Transfer(id, this.sharing(id, link), { of: "file" }),
      ),
    readArchive: (archive) =>
      this.beginReading(
        (shared) => fileRequests.readArchive({ ...archive, shared }),
        (id, link) => new Transfer(id, link, { of: "archive" }),
      ),
    writeArchive: (archive) =>
      this.begin(
        fileRequests.writeArchive(archive),
        (id, link) => new Transfer(id, this.sharing(id, link), { of: "archive" }),
      ),
    dial: (to) => this.begin(dialRequest(to), (id, link) => new Connection(id, link)),
  }

  exec(command: GuestCommand): Process {
    return this.begin(requests.exec(command), (id, link) => new Process(id, link))
  }

  /** Starts a session and attaches to it. */
  openSession(start: SessionStart): Session {
    return this.begin(sessionRequests.open(start, { attach: true }), (id, link) => new Session(id, link))
  }

  /** Starts a detached session. */
  startSession(start: SessionStart, options: { deadlineMs: number }): Promise<{ session: string }> {
    return this.request(
      sessionRequests.open(start, { attach: false }),
      { parse: parseStartedSession },
      options,
    )
  }

  /** Attaches to a session by its id or name; by default to the newest detached session. */
  attachSession(options: { session?: string; tty: TerminalSize }): Session {
    return this.begin(sessionRequests.attach(options), (id, link) => new Session(id, link))
  }

  sessions(options: { deadlineMs: number }): Promise<SessionRecord[]> {
    return this.request(sessionRequests.list(), { parse: parseSessions }, options)
  }

  /** Reads the kept output of a session; an attached client stays attached. */
  readSession(session: string): SessionOutput {
    return this.begin(sessionRequests.read(session), (id, link) => new SessionOutput(id, link))
  }

  /**
   * Reports named sessions that end from now on, and earlier ends that were not reported. An older agent refuses,
   * and no ends are reported. Does not count as use of the sandbox.
   */
  watch(onEnded: (end: SessionNotice) => void): void {
    const refuse = () => {
      throw new WireError("a watch got a frame of a stream")
    }
    let told = 0
    const onMessage = (payload: Uint8Array) => {
      const notice = parseNotice(payload)
      if (!notice || ++told > noticesMax) return false
      onEnded(notice)
      return true
    }
    const ignore = () => undefined
    const stream: Stream = {
      onData: refuse,
      onDataAt: refuse,
      onWindow: refuse,
      onMessage,
      onEnd: ignore,
      onClose: ignore,
      onLost: ignore,
    }
    this.openGlance(sessionRequests.watch(), stream)
  }

  /** Sends a signal to every process of a session; removes a session that has ended. */
  killSession(session: string, signal: string, options: { deadlineMs: number }): Promise<void> {
    return this.request(sessionRequests.kill(session, signal), { parse: () => undefined }, options)
  }
}

function thisMoment(): Moment {
  return {
    entropy: crypto.getRandomValues(new Uint8Array(entropyBytes)),
    unixNs: BigInt(Date.now()) * 1_000_000n,
  }
}
