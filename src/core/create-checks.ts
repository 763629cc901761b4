/** Lets a new sandbox in: its owner's limits, the host's space, a free name, and a client that still waits for it. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core, OnHost } from "./core.ts"
import { friendlyName } from "./names.ts"

const nameAttempts = 5

/** Checks a user's limits per sandbox; for copies too, since the limit may be newer than the source. */
export function checkSizeLimits(account: Account, size: { cpus: number; memoryMib: number }): void {
  const hint = "ask for less, or the operator for a higher limit"
  if (size.cpus > account.maxCpus) {
    const asked = `${size.cpus} cpus are above your limit of ${account.maxCpus} per sandbox`
    throw new AppError("invalid", asked, { hint })
  }
  if (size.memoryMib > account.maxMemoryMib) {
    const asked = `${size.memoryMib} MB of memory are above your limit of ${account.maxMemoryMib} per sandbox`
    throw new AppError("invalid", asked, { hint })
  }
}

/** Refuses to use up the host's last space; `neededMib` is written at once. */
export async function checkSpace(
  core: Pick<Core, "settings"> & OnHost<"disks">,
  neededMib = 0,
): Promise<void> {
  const freeMib = await core.host.disks.freeMib()
  if (freeMib >= core.settings.diskReserveMib + neededMib) return
  if (neededMib > 0 && freeMib >= core.settings.diskReserveMib) {
    throw new AppError("unavailable", `${neededMib} MB may be needed and ${freeMib} MB are free`, {
      hint: `free some space; ${core.settings.diskReserveMib} MB are kept (disk_reserve_mb in config.yaml)`,
    })
  }
  throw new AppError("unavailable", `the host's disk is nearly full: ${freeMib} MB are free`, {
    hint: `free some space; creating keeps ${core.settings.diskReserveMib} MB (disk_reserve_mb in config.yaml)`,
  })
}

/** Last check that the client is still connected; otherwise nobody would know of the sandbox. */
export function checkStillAwaited(record: SandboxRecord, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw goneError(record)
}

export function goneError({ name }: SandboxRecord): AppError {
  return new AppError("conflict", `the create of "${name}" was cancelled: the client disconnected`)
}

/** Adds the record under the requested name, or under a friendly name that is free. */
export async function addNamed(
  name: string | undefined,
  add: (name: string) => Promise<SandboxRecord>,
): Promise<SandboxRecord> {
  const [record] = await addAllNamed([name], async ([only = ""]) => [await add(only)])
  if (!record) throw new Error("a sandbox got no row")
  return record
}

/** Gives friendly names to unnamed sandboxes; if one of them is taken, retries with new ones. */
export async function addAllNamed(
  names: readonly (string | undefined)[],
  add: (names: string[]) => Promise<SandboxRecord[]>,
): Promise<SandboxRecord[]> {
  const isFriendly = names.includes(undefined)
  for (let attempt = 0; ; attempt++) {
    try {
      return await add(names.map((name) => name ?? friendlyName(Math.random, attempt)))
    } catch (error) {
      const isTaken = error instanceof AppError && error.code === "conflict"
      if (!isFriendly || !isTaken || attempt === nameAttempts) throw error
    }
  }
}
