/** The operations of one guest, over its connection. */

import { AppError } from "@bhatti/contract/errors"
import type {
  GuestAnswer,
  GuestOpening,
  GuestOpenings,
  GuestQuestion,
  GuestQuestions,
} from "@bhatti/contract/guest"
import { GuestChannel } from "./channel.ts"
import { Connection, dialRequest } from "./dial.ts"
import { Download, fileRequests, Transfer } from "./files.ts"
import { EarlierProcesses } from "./generation-2.ts"
import { requests } from "./message.ts"
import { Processes, type Requests } from "./process.ts"
import { type Moment, questions, requestOf } from "./questions.ts"
import { type Watcher, watchStream } from "./watch.ts"

const entropyBytes = 64
/** The first generation whose guests keep processes. A guest that has not answered yet is taken for one of it. */
const processGeneration = 3

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
  readonly #processes: Processes
  readonly #earlier: EarlierProcesses

  constructor() {
    super()
    const channel: Requests = {
      begin: (request, make) => this.begin(request, make),
      request: (request, answer, options) => this.request(request, answer, options),
    }
    this.#processes = new Processes(channel)
    this.#earlier = new EarlierProcesses(channel)
  }

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

  /** Commands, in the words that this guest's agent understands. */
  get processes(): Processes | EarlierProcesses {
    const { generation } = this
    return generation === undefined || generation >= processGeneration ? this.#processes : this.#earlier
  }

  /** Reports from now on, and earlier ends that were not reported. Does not count as use of the sandbox. */
  watch(watcher: Watcher): void {
    this.openGlance(requests.watch(), watchStream(watcher))
  }
}

function thisMoment(): Moment {
  return {
    entropy: crypto.getRandomValues(new Uint8Array(entropyBytes)),
    unixNs: BigInt(Date.now()) * 1_000_000n,
  }
}
