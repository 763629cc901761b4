/**
 * The program that an image is made to run, its ENTRYPOINT and CMD: the session `main` of a sandbox whose create asks
 * for it, started again at each boot. Also the port that it listens on.
 */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessStart } from "@bhatti/contract/guest"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { checkCommand } from "../rules/input.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { recordBootFailure } from "./boot-script.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"
import { session } from "./process-presets.ts"
import { mainSession } from "./start-command.ts"
import { withStartReason } from "./start-reason.ts"

const deadlineMs = 15_000

/** `words` replace the image's CMD, and are the whole program if it has no ENTRYPOINT. */
export function mainOf(
  image: { name: string; config?: ImageConfig | undefined },
  words: readonly string[],
): string[] {
  const { entrypoint = [], cmd = [] } = image.config ?? {}
  const main = [...entrypoint, ...(words.length > 0 ? words : cmd)]
  if (main.length === 0)
    throw new AppError("invalid", `image "${image.name}" names no program to run`, {
      hint: "name one with its arguments",
    })
  checkCommand({ argv: main })
  return main
}

function startOf(argv: string[]): ProcessStart {
  return { argv, name: mainSession, ...session({ rows: 24, cols: 80 }) }
}

/** Starts it in a sandbox that is being made. One that cannot be started fails the create. */
export async function startMain(record: SandboxRecord, guest: Guest): Promise<void> {
  if (record.mainCommand === null) return
  try {
    await guest.processes.startDetached(startOf(record.mainCommand), { deadlineMs })
  } catch (error) {
    throw withStartReason(error, record)
  }
}

/** The same after a boot from disk: a failure is an event, and the sandbox runs on. */
export async function startMainAtBoot(
  core: Pick<Core, "events" | "log">,
  record: SandboxRecord,
  guest: Guest,
): Promise<void> {
  if (record.mainCommand === null) return
  try {
    await guest.processes.startDetached(startOf(record.mainCommand), { deadlineMs })
  } catch (error) {
    recordBootFailure(core, record, "sandbox.start_command_failed", error)
  }
}

/** The only port that the image says its program listens on. */
export function portOfImage({ imageConfig }: Pick<SandboxRecord, "imageConfig">): number {
  const ports = imageConfig?.ports ?? []
  const [only] = ports
  if (only !== undefined && ports.length === 1) return only
  const why =
    ports.length === 0 ? "its image names none" : `its image names several: ${ports.slice(0, 20).join(", ")}`
  throw new AppError("invalid", `which port? ${why}`, { hint: "name the port" })
}
