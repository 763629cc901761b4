/** Restarts a sandbox: its guest shuts down in good order, and its machine boots from disk. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { detach } from "./attachment.ts"
import type { Core, ForRequest, OnHost } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { dropGuest } from "./guest-channel.ts"
import { heldText } from "./held.ts"
import type { Machine } from "./host.ts"
import { machineOf, templateToStart } from "./machine-of.ts"
import { bootFromDisk } from "./power.ts"
import { describeById, type Sandbox } from "./sandbox.ts"
import { settle } from "./settle.ts"

const answerDeadlineMs = 5000
/** The guest gives its programs 5 s to end, then syncs. */
const endDeadlineMs = 30_000
/** An init gets 40 s to end what it has started. */
const initEndDeadlineMs = 80_000

export async function restartByName(
  core: ForRequest & Pick<Core, "waits">,
  account: Account,
  nameOrId: string,
): Promise<Sandbox> {
  const found = await findSandbox(core, account, nameOrId)
  core.touches.set(found.id, { what: "restart", atMs: core.clock.nowMs() })
  await withFailure(core, { type: "sandbox.restart_failed", sandbox: found }, () =>
    core.turns.take(found.id, async () => {
      const startedAt = core.clock.nowMs()
      const settled = await settle(core, found.id)
      if (!settled) throw noSandbox(nameOrId)
      // The held machine's pending writes would be lost.
      const record = await core.space.checkInTurn(settled)
      const { kind } = record.state
      if (kind !== "hot" && kind !== "warm" && kind !== "cold") {
        throw new AppError("unavailable", `sandbox "${record.name}" is ${kind}`, {
          hint: "try again in a moment",
        })
      }
      const template = await templateToStart(core, record)
      const machine = machineOf(record)
      if (machine) {
        await checkRoom(core, record)
        await end(core, record, machine, account)
      }
      await bootFromDisk(core, record, template, "it was restarted")
      core.failedStarts.forget(record.id)
      const meta = { by: "user", ms: Math.round(core.clock.nowMs() - startedAt) }
      core.events.record({ type: "sandbox.restarted", userId: account.id, sandbox: record, meta })
    }),
  )
  return describeById(core, found.id)
}

/** A guest writes out its files when it ends; without room it would stand still in the middle of that. */
async function checkRoom(core: Pick<Core, "space">, { name }: SandboxRecord): Promise<void> {
  if (!(await core.space.isShort())) return
  throw new AppError("unavailable", `sandbox "${name}" is not restarted: ${heldText("host_disk")}`, {
    hint: "it runs on; remove sandboxes or snapshots, or ask the operator to free space, then try again",
  })
}

/**
 * A guest that misses the deadline is killed, which leaves its disk as after a power loss. Throws if the guest's last
 * writes find no space.
 */
async function end(
  core: Pick<Core, "endings" | "guests" | "log" | "space"> & OnHost<"machines" | "network">,
  record: SandboxRecord,
  machine: Machine,
  { name: by }: Account,
): Promise<void> {
  const { machines } = core.host
  await machines.resume(machine)
  try {
    await core.space.unlessHalted(record, machine, shutDown(core, record, machine))
  } catch (error) {
    if (!(error instanceof AppError) || core.space.heldOf(record) !== undefined) throw error
    core.log.warn({ sandbox: record.id, error }, "restarting a sandbox whose guest did not shut down")
  } finally {
    dropGuest(core, record.id, { cause: "restarted", by })
  }
  await machines.kill(machine)
  await detach(core, record.id)
}

async function shutDown(
  core: Pick<Core, "guests"> & OnHost<"machines">,
  { id, initSystem }: SandboxRecord,
  machine: Machine,
): Promise<void> {
  await core.guests.get(id)?.ask({ op: "shutdown" }, { deadlineMs: answerDeadlineMs })
  await core.host.machines.fateOf(machine, { deadlineMs: initSystem ? initEndDeadlineMs : endDeadlineMs })
}
