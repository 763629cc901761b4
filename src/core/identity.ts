/**
 * Sets what makes each clone unique. The host end of the agent's protocol generates the random values, per
 * personalisation.
 */

import { AppError } from "@bhatti/contract/errors"
import type { GuestIdentity } from "@bhatti/contract/guest"
import type { ImageConfig } from "@bhatti/contract/image-config"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"
import { defaultEnvironment } from "./guest-defaults.ts"
import type { Guest } from "./host.ts"

/**
 * Gives the guest its whole identity. No request may use the sandbox before that. `isPending`: a clone is ready only
 * after `startClone`.
 */
export async function personalise(
  core: Pick<Core, "settings" | "store"> & OnHost<"network">,
  record: SandboxRecord,
  guest: Guest,
  options: { env: Record<string, string>; growDisk: boolean; isNew?: boolean; deadlineMs: number },
): Promise<{ isPending: boolean }> {
  const network = core.host.network?.identityOf(record) ?? null
  const identity = {
    hostname: hostnameOf(record.name),
    machineId: machineIdOf(record.id),
    env: { ...defaultEnvironment(core.settings.guestDefaults), ...options.env },
    network,
    growDisk: options.growDisk,
    ...(options.isNew && { isNew: true }),
    ...imageDefaults(record.imageConfig),
  }
  const { isPending, knowsImages } = await guest.ask(
    { op: "personalise", identity },
    { deadlineMs: options.deadlineMs },
  )
  if (record.imageConfig && !knowsImages) throw agentTooOld()
  if (network?.address !== record.address)
    await core.store.sandboxes.setAddress(record.id, network?.address ?? null)
  return { isPending }
}

/** The part of an identity that an image of others adds. */
export function imageDefaults(config: ImageConfig | null | undefined): Pick<GuestIdentity, "image"> {
  if (!config) return {}
  const { user, workdir, env } = config
  return { image: { user, workdir, env } }
}

/** Its commands would run as another user than the image says. */
function agentTooOld(): AppError {
  return new AppError("unavailable", "the guest's agent is too old for an image that is not ours", {
    hint: "the host's operator has to install the guest's kernel and agent again",
    retryable: false,
  })
}

/**
 * Sets the clock of a guest that resumes from memory; also sets its whole identity if its address has changed with the
 * host's network.
 */
export async function refresh(
  core: Pick<Core, "settings" | "store"> & OnHost<"network">,
  record: SandboxRecord,
  guest: Guest,
  options: { deadlineMs: number },
): Promise<void> {
  const address = core.host.network?.identityOf(record).address ?? null
  if (record.address === address) {
    await guest.ask({ op: "refresh" }, options)
    return
  }
  const env = await environmentOf(core, record)
  await personalise(core, record, guest, { env, growDisk: false, ...options })
}

/** The sandbox's variables, and those of its secrets that still exist. */
export async function environmentOf(
  core: Pick<Core, "store">,
  record: SandboxRecord,
): Promise<Record<string, string>> {
  return {
    ...record.env,
    ...(await core.store.secrets.revealExisting(record.userId, record.secretNames)),
  }
}

/** Unique to the sandbox and the same at every start: 32 hexadecimal digits. */
function machineIdOf(id: string): string {
  return new Bun.CryptoHasher("sha256").update(`machine-id ${id}`).digest("hex").slice(0, 32)
}

/** A sandbox's name may contain underscores and end in a dot; a host name may not. */
export function hostnameOf(name: string): string {
  const cleaned = name.replaceAll(/[^a-zA-Z0-9-]+/g, "-").replaceAll(/^-+|-+$/g, "")
  return cleaned === "" ? "sandbox" : cleaned
}
