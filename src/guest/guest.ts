/** The operations of one guest, over its connection. */

import { AppError } from "@bhatti/contract/errors"
import type {
  FileList,
  FileSection,
  GuestCommand,
  GuestFile,
  GuestIdentity,
  GuestOwner,
  ListeningPort,
  Pong,
  SessionNotice,
  SessionRecord,
  SessionStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { GuestChannel } from "./channel.ts"
import { Connection, dialRequests, parsePorts } from "./dial.ts"
import { Download, fileRequests, Listing, parseListed, parseOwner, parseStat, Transfer } from "./files.ts"
import { WireError } from "./frame.ts"
import { parseNextTimer, parsePersonalised, parsePong, requests } from "./message.ts"
import type { Stream } from "./operation.ts"
import { Process } from "./process.ts"
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

export class Guest extends GuestChannel {
  /** Does not count as use of the sandbox. */
  ping(options: { deadlineMs: number }): Promise<Pong> {
    return this.ask(requests.ping(), parsePong, { ...options, isGlance: true })
  }

  /** Gives the guest its identity, fresh randomness and the time. If this fails, the guest must not be used. */
  personalise(identity: GuestIdentity, options: { deadlineMs: number }): Promise<{ bootId: string }> {
    return this.ask(requests.personalise(identity, thisMoment()), parsePersonalised, options)
  }

  /** Sends fresh randomness and the time to a guest that was paused or restored and keeps its identity. */
  refresh(options: { deadlineMs: number }): Promise<void> {
    return this.ask(requests.refresh(thisMoment()), () => undefined, options)
  }

  /**
   * Brings the guest to a frame boundary with its filesystems synced. The caller must not send requests afterwards.
   * With `untouchedMib` it also overwrites freed memory.
   */
  quiesce(options: { deadlineMs: number; untouchedMib?: number | undefined }): Promise<void> {
    return this.ask(requests.quiesce(options), () => undefined, options)
  }

  /** Returns when the first program inside wants to run again. Does not count as use of the sandbox. */
  nextTimer(options: { deadlineMs: number }): Promise<{ dueMs: number | null }> {
    return this.ask(requests.nextTimer(), parseNextTimer, { ...options, isGlance: true })
  }

  /**
   * Makes the guest sync its filesystems and discard deleted blocks, as far as `budgetMs` allows. Older agents do
   * not support it. With `untouchedMib` it also overwrites freed memory. Does not count as use of the sandbox.
   */
  trim(options: { budgetMs: number; untouchedMib?: number | undefined; deadlineMs: number }): Promise<void> {
    return this.ask(requests.trim(options), () => undefined, { ...options, isGlance: true })
  }

  /** Resolves once the guest has begun to power off. */
  shutdown(options: { deadlineMs: number }): Promise<void> {
    return this.ask(requests.shutdown(), () => undefined, options)
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
    return this.ask(sessionRequests.open(start, { attach: false }), parseStartedSession, options)
  }

  /** Attaches to a session by its id or name; by default to the newest detached session. */
  attachSession(options: { session?: string; tty: TerminalSize }): Session {
    return this.begin(sessionRequests.attach(options), (id, link) => new Session(id, link))
  }

  sessions(options: { deadlineMs: number }): Promise<SessionRecord[]> {
    return this.ask(sessionRequests.list(), parseSessions, options)
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
    return this.ask(sessionRequests.kill(session, signal), () => undefined, options)
  }

  readFile(options: { path: string } & FileSection): Download {
    return this.beginReading(
      (shared) => fileRequests.read({ ...options, shared }),
      (id, link) => new Download(id, link),
    )
  }

  /** The file exists once `result` resolves; otherwise it is unchanged. */
  writeFile(options: {
    path: string
    mode?: string
    size?: number
    parents?: boolean
    owner?: GuestOwner
  }): Transfer {
    return this.begin(
      fileRequests.write(options),
      (id, link) => new Transfer(id, this.sharing(id, link), { of: "file" }),
    )
  }

  /** Looks up "user" or "user:group" in the guest. */
  findOwner(owner: string, options: { deadlineMs: number }): Promise<GuestOwner> {
    return this.ask(fileRequests.findOwner(owner), parseOwner, options)
  }

  async listFiles(path: string, options: { deadlineMs: number }): Promise<FileList> {
    const listing = new Listing()
    const { isTruncated } = await this.ask(fileRequests.list(path), parseListed, {
      ...options,
      onMessage: (payload) => listing.take(payload),
    })
    return { files: listing.files, isTruncated }
  }

  statFile(path: string, options: { deadlineMs: number }): Promise<GuestFile> {
    return this.ask(fileRequests.stat(path), parseStat, options)
  }

  removeFile(file: { path: string; recursive: boolean }, options: { deadlineMs: number }): Promise<void> {
    return this.ask(fileRequests.remove(file), () => undefined, options)
  }

  makeDirectory(
    directory: { path: string; parents: boolean; mode: string; owner?: GuestOwner },
    options: { deadlineMs: number },
  ): Promise<void> {
    return this.ask(fileRequests.makeDirectory(directory), () => undefined, options)
  }

  moveFile(names: { from: string; to: string }, options: { deadlineMs: number }): Promise<void> {
    return this.ask(fileRequests.move(names), () => undefined, options)
  }

  /** A tar stream of a file or directory. */
  readArchive(options: { path: string }): Transfer {
    return this.beginReading(
      (shared) => fileRequests.readArchive({ ...options, shared }),
      (id, link) => new Transfer(id, link, { of: "archive" }),
    )
  }

  /** Unpacks the tar stream that is written to it below a directory. */
  writeArchive(options: { path: string; owner?: GuestOwner }): Transfer {
    return this.begin(
      fileRequests.writeArchive(options),
      (id, link) => new Transfer(id, this.sharing(id, link), { of: "archive" }),
    )
  }

  dial(port: number): Connection {
    return this.begin(dialRequests.dial(port), (id, link) => new Connection(id, link))
  }

  /** Returns the guest's listening TCP ports. */
  ports(options: { deadlineMs: number }): Promise<ListeningPort[]> {
    return this.ask(dialRequests.ports(), parsePorts, options)
  }
}

function thisMoment(): { entropy: Uint8Array; unixNs: bigint } {
  return {
    entropy: crypto.getRandomValues(new Uint8Array(entropyBytes)),
    unixNs: BigInt(Date.now()) * 1_000_000n,
  }
}
