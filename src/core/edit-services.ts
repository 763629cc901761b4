/** Changes of a sandbox's services: which there are afterwards, and their handover to the running guest. */

import { AppError, startReasons } from "@bhatti/contract/errors"
import { checkService } from "../rules/services.ts"
import type { SandboxService } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"
import { forGuest } from "./services.ts"

/** The guest gives services that leave 8 s to end. */
const setDeadlineMs = 25_000

export type ServiceChanges = {
  /** Each replaces one of its name. */
  servicesAdd?: readonly SandboxService[]
  servicesRemove?: readonly string[]
}

/** Returns undefined if no change of services is asked for. */
export function changedServices(
  before: readonly SandboxService[],
  { servicesAdd = [], servicesRemove = [] }: ServiceChanges,
): SandboxService[] | undefined {
  if (servicesAdd.length === 0 && servicesRemove.length === 0) return undefined
  const missing = servicesRemove.find((name) => !before.some((one) => one.name === name))
  if (missing !== undefined) throw new AppError("invalid", `no service "${missing}"`)
  const both = servicesAdd.find(({ name }) => servicesRemove.includes(name))
  if (both) throw new AppError("invalid", `service "${both.name}" is both set and removed`)
  const kept = before.filter(({ name }) => !servicesRemove.includes(name))
  const changed = kept.map((old) => servicesAdd.find(({ name }) => name === old.name) ?? old)
  const services = [...changed, ...servicesAdd.filter(({ name }) => !kept.some((old) => old.name === name))]
  checkService(services)
  return services
}

/**
 * The guest ends and starts what differs. If it refuses, it has changed nothing. If it does not answer, it may have
 * the new ones, so the former ones follow: it sets them in turn, and its next boot begins with them at the latest.
 */
export async function replaceServices(
  core: Pick<Core, "log">,
  guest: Guest,
  { id, services: former }: SandboxRecord,
  services: readonly SandboxService[],
): Promise<void> {
  try {
    await setServices(guest, services)
  } catch (error) {
    if (error instanceof AppError && error.code === "unavailable")
      await setServices(guest, former).catch((again: unknown) =>
        core.log.warn(
          { sandbox: id, error: again },
          "a sandbox may keep edited services until its next boot",
        ),
      )
    throw error
  }
}

async function setServices(guest: Guest, services: readonly SandboxService[]): Promise<void> {
  try {
    await guest.ask({ op: "setServices", services: services.map(forGuest) }, { deadlineMs: setDeadlineMs })
  } catch (error) {
    if (error instanceof AppError && startReasons.some((one) => one === error.reason))
      throw error.but({ code: "invalid", message: `a service cannot be started: ${error.message}` })
    if (!(error instanceof AppError) || error.code !== "unavailable" || error.reason !== undefined)
      throw error
    throw error.but({
      hint: "if the sandbox was last booted by an earlier version, restart it and try again",
    })
  }
}
