/** Runs a command in a sandbox and enforces its time limit. */

import type { GuestCommand } from "@bhatti/contract/guest"
import type { Account } from "../store/users.ts"
import { awakeGuest } from "./awake.ts"
import type { Core, ForRequest } from "./core.ts"
import type { GuestProcess } from "./host.ts"
import { withStartReason } from "./start-reason.ts"

export type RunningCommand = {
  process: GuestProcess
  /** The command's result, and whether the time limit ended it. */
  result: Promise<{ exitCode: number; signal: string | null; timedOut: boolean }>
}

export async function execInSandbox(
  core: ForRequest & Pick<Core, "metrics">,
  account: Account,
  nameOrId: string,
  options: { command: GuestCommand; timeoutSec: number | undefined; signal?: AbortSignal },
): Promise<RunningCommand> {
  const guest = await awakeGuest(core, account, nameOrId, "exec")
  const startedAt = core.clock.nowMs()
  core.metrics.execStarted()
  const process = guest.exec(options.command)
  let timedOut = false
  const timeOut = () => {
    timedOut = true
    process.kill()
  }
  const { timeoutSec } = options
  const alarm = timeoutSec === undefined ? undefined : core.clock.after(timeoutSec * 1000, timeOut)
  const kill = () => process.kill()
  options.signal?.addEventListener("abort", kill, { once: true })
  const result = process.result.then(
    (ended) => ({ ...ended, timedOut }),
    (error: unknown) => {
      throw withStartReason(error)
    },
  )
  const stopWatching = () => {
    core.metrics.execEnded(core.clock.nowMs() - startedAt)
    alarm?.cancel()
    options.signal?.removeEventListener("abort", kill)
  }
  result.then(stopWatching, stopWatching)
  return { process, result }
}
