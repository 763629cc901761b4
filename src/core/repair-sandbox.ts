/**
 * Repairs a sandbox's file system: ends its machine, boots it again, and runs e2fsck in it before the root is mounted.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Account } from "../store/users.ts"
import { detach } from "./attachment.ts"
import { answerDeadlineMs } from "./awake.ts"
import type { Core, ForSettle } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox, noSandbox } from "./find.ts"
import { machineOf, templateToStart } from "./machine-of.ts"
import { bootFromDisk, silence } from "./power.ts"
import { describeById, type Sandbox } from "./sandbox.ts"
import { settle } from "./settle.ts"

/** Bits of e2fsck's exit code: errors corrected, and reboot needed. */
const fixedBits = 1 | 2

/** The disk had no errors (`clean`), all were fixed (`repaired`), or some could not be (`damaged`). */
export type Repaired = { result: "clean" | "repaired" | "damaged"; output: string; sandbox: Sandbox }

export async function repairByName(
  core: ForSettle & Pick<Core, "turns" | "waits">,
  account: Account,
  nameOrId: string,
): Promise<Repaired> {
  const found = await findSandbox(core, account, nameOrId)
  const { id } = found
  const inTurn = async () => {
    const startedAt = core.clock.nowMs()
    const settled = await settle(core, id)
    if (!settled) throw noSandbox(nameOrId)
    // The held machine's pending writes would be lost.
    const record = await core.space.checkInTurn(settled)
    const { machines, images } = core.host
    const template = await templateToStart(core, record)
    const ordinary = await images.readKernel({ name: record.imageName, hash: record.imageHash })
    using kernel = await images.repairKernel(ordinary)
    const machine = machineOf(record)
    if (machine) {
      await silence(core, record, machine, { ending: { cause: "restarted", by: account.name } })
      await machines.kill(machine)
      await detach(core, id)
    }
    const guest = await bootFromDisk(core, record, template, "its file system was repaired", kernel)
    const { repair } = await guest.ask({ op: "ping" }, { deadlineMs: answerDeadlineMs })
    const code = repair?.exitCode ?? null
    const ms = Math.round(core.clock.nowMs() - startedAt)
    const meta = { by: "user", exit_code: code, ms }
    core.events.record({ type: "sandbox.repaired", userId: account.id, sandbox: record, meta })
    if (repair) return repair
    throw new AppError(
      "unavailable",
      `sandbox "${record.name}" was booted, but its kernel is too old to repair`,
      {
        hint: "the operator installs a newer one, then try again",
        subject: { kind: "kernel" },
        retryable: false,
      },
    )
  }
  const failure = { type: "sandbox.repair_failed", sandbox: found } as const
  const repair = await withFailure(core, failure, () => core.turns.take(id, inTurn))
  const result =
    repair.exitCode === 0 ? "clean" : (repair.exitCode & ~fixedBits) === 0 ? "repaired" : "damaged"
  return { result, output: repair.output, sandbox: await describeById(core, id) }
}
