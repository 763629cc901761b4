/** Running a command in a sandbox, and seeing that it ends in time. */

import { AppError } from "../contract/errors.ts"
import type { Account } from "../store/users.ts"
import { repair } from "./attach.ts"
import type { Core } from "./core.ts"
import { findSandbox } from "./find.ts"
import type { Guest, GuestCommand, GuestProcess } from "./host.ts"

export type RunningCommand = {
  process: GuestProcess
  /** The command's end, and whether it was its time limit that ended it. */
  result: Promise<{ exitCode: number; signal: string | null; timedOut: boolean }>
}

export async function execInSandbox(
  core: Core,
  account: Account,
  nameOrId: string,
  options: { command: GuestCommand; timeoutSec: number | undefined; signal?: AbortSignal },
): Promise<RunningCommand> {
  const guest = await awakeGuest(core, account, nameOrId)
  const process = guest.exec(options.command)
  let timedOut = false
  const timer =
    options.timeoutSec === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true
          process.kill()
        }, options.timeoutSec * 1000)
  const kill = () => process.kill()
  options.signal?.addEventListener("abort", kill, { once: true })
  const result = process.result.then((ended) => ({ ...ended, timedOut }))
  const stopWatching = () => {
    clearTimeout(timer)
    options.signal?.removeEventListener("abort", kill)
  }
  result.then(stopWatching, stopWatching)
  return { process, result }
}

/** The channel to the sandbox's guest. */
async function awakeGuest(core: Core, account: Account, nameOrId: string): Promise<Guest> {
  const record = await findSandbox(core, account, nameOrId)
  const open = core.guests.get(record.id)
  if (open && record.state.kind === "hot") return open
  return core.turns.take(record.id, async () => {
    const now = await core.store.sandboxes.get(record.id)
    if (now?.state.kind === "hot" && !core.guests.has(record.id)) await repair(core, now, "no channel")
    const guest = core.guests.get(record.id)
    if (guest) return guest
    const after = await core.store.sandboxes.get(record.id)
    if (after?.state.kind === "broken") {
      throw new AppError("conflict", `sandbox "${record.name}" is not running: ${after.state.reason}`, {
        hint: `bhatti destroy ${record.name}, then create it again`,
      })
    }
    throw new AppError("not_found", `no sandbox named "${nameOrId}"`, { hint: "bhatti list shows yours" })
  })
}
