/**
 * Services of a sandbox: the guest starts them, keeps them running and ends them; here they are handed over at a create
 * and at each boot, and their failures become events. `services-of-owner.ts` is for their owner.
 */

import { AppError } from "@bhatti/contract/errors"
import type { GuestService, GuestServiceState } from "@bhatti/contract/guest"
import { checkService, programOf } from "../rules/services.ts"
import type { SandboxService } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"

const deadline = { deadlineMs: 15_000 }

/** Services of an image, and those of a create; these replace one of the same name. */
export function servicesOf(
  image: readonly SandboxService[] = [],
  wanted: readonly SandboxService[] = [],
): SandboxService[] {
  const services = [...image.filter(({ name }) => !wanted.some((one) => one.name === name)), ...wanted]
  checkService(services)
  return services
}

/**
 * Hands the services to a sandbox that is being made. A program that cannot be started fails the create, unless the
 * init script may install it.
 */
export async function startServices(
  record: SandboxRecord,
  guest: Guest,
  { hasInit }: { hasInit: boolean },
): Promise<void> {
  if (record.services.length === 0) return
  const states = await guest.ask({ op: "startServices", services: record.services.map(forGuest) }, deadline)
  const broken = states.find(
    ({ failure, failureReason }) => failure !== null && !(hasInit && failureReason === "no_program"),
  )
  if (!broken) return
  throw new AppError("invalid", `service "${broken.name}" cannot be started: ${broken.failure}`, {
    reason: broken.failureReason ?? "not_started",
  })
}

/** The same after a boot: a failure is an event, and the sandbox runs on. */
export async function startServicesAtBoot(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  if (record.services.length === 0) return
  try {
    await guest.ask({ op: "startServices", services: record.services.map(forGuest) }, deadline)
  } catch (error) {
    core.log.warn({ sandbox: record.id, error }, "the services of a sandbox could not be started")
    const reason = error instanceof Error ? error.message : String(error)
    core.events.record({
      type: "sandbox.service_failing",
      userId: record.userId,
      sandbox: record,
      meta: { by: "guest", reason },
    })
  }
}

export function forGuest({ command, ...service }: SandboxService): GuestService {
  return { ...service, argv: ["/bin/sh", "-c", command], program: programOf(command) }
}

/** Handles the guest's notice that a service has ended many times in a row. */
export function onServiceFailing(
  core: Pick<Core, "events">,
  record: SandboxRecord,
  state: GuestServiceState,
): void {
  core.events.record({
    type: "sandbox.service_failing",
    userId: record.userId,
    sandbox: record,
    meta: {
      by: "guest",
      service: state.name,
      restarts: state.restarts,
      reason: reasonOf(state) ?? "it ended",
    },
  })
}

/** Why it does not run, or why it ended last. */
export function reasonOf({ failure, ended }: GuestServiceState): string | null {
  if (failure !== null) return failure
  if (!ended) return null
  return ended.signal === null ? `it exited with ${ended.exitCode}` : `it was ended by SIG${ended.signal}`
}
