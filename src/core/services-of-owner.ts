/** Requests of an owner about the services of a sandbox. */

import { AppError } from "@bhatti/contract/errors"
import type { GuestServiceState } from "@bhatti/contract/guest"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awakeGuest } from "./awake.ts"
import type { ForRequest } from "./core.ts"
import { findSandbox } from "./find.ts"

/** A service that is stopped gets 5 s to end. */
const controlDeadlineMs = 20_000

const changes = {
  start: { type: "sandbox.service_started", done: "started" },
  stop: { type: "sandbox.service_stopped", done: "stopped" },
  restart: { type: "sandbox.service_restarted", done: "restarted" },
} as const

export async function listServices(
  core: ForRequest,
  account: Account,
  nameOrId: string,
): Promise<GuestServiceState[]> {
  const guest = await awakeGuest(core, account, nameOrId, "services")
  return guest.ask({ op: "listServices" }, { deadlineMs: answerDeadlineMs })
}

export async function controlService(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  { service, action }: { service: string; action: "start" | "stop" | "restart" },
): Promise<GuestServiceState> {
  const { id, name } = await findSandbox(core, account, nameOrId)
  const guest = await awakeGuest(core, account, id, `${action} of a service`)
  const states = await guest.ask({ op: "controlService", service, action }, { deadlineMs: controlDeadlineMs })
  const state = states.find(({ name }) => name === service)
  if (!state) throw new AppError("not_found", `no service "${service}"`)
  const { type, done } = changes[action]
  core.events.record({
    type,
    userId: account.id,
    sandbox: { id, name },
    meta: { by: "user", user: account.name, service, reason: `it was ${done} by ${account.name}` },
  })
  return state
}
