/** A client's process whose loss is explained: with the reason for which its sandbox's machine ended. */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessOutcome } from "@bhatti/contract/guest"
import type { Core } from "./core.ts"
import type { Guest, GuestProcess } from "./host.ts"

const during = "while the command ran"

/** For a process that is kept. A stop keeps the memory, and so everything that runs. */
export const runsOn = "it is kept, and goes on when the sandbox is next used"

/** With `mayLeave` the guest may end the attachment by itself, when it has sent the output that there is. */
export function explained(
  core: Pick<Core, "endings">,
  guest: Guest,
  process: GuestProcess,
  { mayLeave = false, ifStopped }: { mayLeave?: boolean; ifStopped?: string | undefined } = {},
): GuestProcess {
  let isLeft = mayLeave
  let isDaemonStopping = false
  const explain = async (error: unknown): Promise<never> => {
    throw await core.endings.explain(guest, error, { during, ifStopped })
  }
  const listening = core.endings.onDaemonStop(() => {
    isDaemonStopping = true
    process.leave()
  })
  const result = process.result
    .then((outcome: ProcessOutcome) => {
      if (outcome.state !== "left" || isLeft) return outcome
      // A guest that falls silent sends its clients away before its channel is closed.
      if (!isDaemonStopping) return explain(sentAway())
      throw core.endings.stopError(guest, during)
    }, explain)
    .finally(() => listening[Symbol.dispose]())
  const attached = process.attached.catch(explain)
  for (const promise of [result, attached]) promise.catch(() => undefined)
  return {
    attached,
    output: explainedOutput(process.output, explain),
    result,
    write: (bytes) => process.write(bytes),
    endInput: () => process.endInput(),
    signal: (signal) => process.signal(signal),
    resize: (size) => process.resize(size),
    kill: (by) => process.kill(by),
    leave() {
      isLeft = true
      process.leave()
    },
  }
}

export async function* explainedOutput<Chunk>(
  output: AsyncIterable<Chunk>,
  explain: (error: unknown) => Promise<never>,
): AsyncGenerator<Chunk> {
  try {
    yield* output
  } catch (error) {
    await explain(error)
  }
}

function sentAway(): AppError {
  return new AppError("unavailable", "the guest has sent its client away", { reason: "channel_lost" })
}
