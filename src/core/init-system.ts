/** The init of a sandbox's image: systemd or another, which its guest starts when asked. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { recordBootFailure } from "./boot-script.ts"
import type { Core } from "./core.ts"
import type { Guest, TemplateSpec } from "./host.ts"

/** The init itself needs longer; it has only begun when the guest answers. */
const startDeadlineMs = 20_000

/** Returns true if a new sandbox gets its init started. */
export function initSystemOf({ image, programs }: TemplateSpec, asked: boolean | undefined): boolean {
  const isWanted = asked ?? image.initSystem ?? false
  if (!isWanted || !programs) return isWanted
  throw new AppError("invalid", "a start command runs in a template, before an init is started", {
    hint: "leave out the start command and use a service, or leave out the init",
  })
}

/** An image without an init fails the create. */
export async function startInit(record: SandboxRecord, guest: Guest): Promise<void> {
  if (record.initSystem) await guest.ask({ op: "startInit" }, { deadlineMs: startDeadlineMs })
}

/** After a boot a failure is an event, and the sandbox runs without its init, so that it can be repaired. */
export async function startInitAtBoot(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  try {
    await startInit(record, guest)
  } catch (error) {
    recordBootFailure(core, record, "sandbox.init_system_failed", error)
  }
}
