/** Runs a command in a sandbox and enforces its time limit. */

import type { GuestCommand } from "@bhatti/contract/guest"
import type { Account } from "../store/users.ts"
import { awakeGuest } from "./awake.ts"
import type { Core } from "./core.ts"
import type { GuestProcess } from "./host.ts"

export type RunningCommand = {
  process: GuestProcess
  /** The command's result, and whether the time limit ended it. */
  result: Promise<{ exitCode: number; signal: string | null; timedOut: boolean }>
}

export async function execInSandbox(
  core: Core,
  account: Account,
  nameOrId: string,
  options: { command: GuestCommand; timeoutSec: number | undefined; signal?: AbortSignal },
): Promise<RunningCommand> {
  const guest = await awakeGuest(core, account, nameOrId, "exec")
  const startedAt = performance.now()
  core.metrics.execStarted()
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
    core.metrics.execEnded(performance.now() - startedAt)
    clearTimeout(timer)
    options.signal?.removeEventListener("abort", kill)
  }
  result.then(stopWatching, stopWatching)
  return { process, result }
}
