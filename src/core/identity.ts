/** What makes one clone different from all others. Random values are made by the agent's host end, per personalisation. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import type { Guest } from "./host.ts"
import { offeredEnvironment } from "./offer.ts"

/** Gives the guest all of it. Before that, nobody may use it. */
export async function personalise(
  core: Core,
  record: SandboxRecord,
  guest: Guest,
  options: { env: Record<string, string>; growDisk: boolean; deadlineMs: number },
): Promise<void> {
  const network = core.host.network?.identityOf(record) ?? null
  const identity = {
    hostname: hostnameOf(record.name),
    machineId: machineIdOf(record.id),
    env: { ...offeredEnvironment(core.settings.offer), ...options.env },
    network,
    growDisk: options.growDisk,
  }
  await guest.personalise(identity, { deadlineMs: options.deadlineMs })
  if (network?.address !== record.address)
    await core.store.sandboxes.setAddress(record.id, network?.address ?? null)
}

/**
 * A guest that runs on from its memory gets the time; and all of its identity when the address it knows is not its own
 * any more, since the host's network has changed.
 */
export async function refresh(
  core: Core,
  record: SandboxRecord,
  guest: Guest,
  options: { deadlineMs: number },
): Promise<void> {
  const address = core.host.network?.identityOf(record).address ?? null
  if (record.address === address) {
    await guest.refresh(options)
    return
  }
  const env = await environmentOf(core, record)
  await personalise(core, record, guest, { env, growDisk: false, ...options })
}

/** Its variables, and those of its secrets that still exist. */
export async function environmentOf(core: Core, record: SandboxRecord): Promise<Record<string, string>> {
  return {
    ...record.env,
    ...(await core.store.secrets.revealExisting(record.userId, record.secretNames)),
  }
}

/** The same at every start of the sandbox, and nobody else's: 32 hexadecimal digits. */
function machineIdOf(id: string): string {
  return new Bun.CryptoHasher("sha256").update(`machine-id ${id}`).digest("hex").slice(0, 32)
}

/** A sandbox's name may hold underscores and end in a dot, a host name may not. */
export function hostnameOf(name: string): string {
  const cleaned = name.replaceAll(/[^a-zA-Z0-9-]+/g, "-").replaceAll(/^-+|-+$/g, "")
  return cleaned === "" ? "sandbox" : cleaned
}
