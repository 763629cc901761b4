/** What makes one clone different from all others. Random values are made by the agent's host end, per personalisation. */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { GuestIdentity } from "./host.ts"

export function newIdentity(
  record: SandboxRecord,
  options: { env: Record<string, string>; growDisk: boolean },
): GuestIdentity {
  return {
    hostname: hostnameOf(record.name),
    machineId: machineIdOf(record.id),
    env: options.env,
    network: null,
    growDisk: options.growDisk,
  }
}

/** The same at every start of the sandbox, and nobody else's: 32 hexadecimal digits. */
function machineIdOf(id: string): string {
  return new Bun.CryptoHasher("sha256").update(`machine-id ${id}`).digest("hex").slice(0, 32)
}

/** A sandbox's name may hold underscores and end in a dot, a host name may not. */
function hostnameOf(name: string): string {
  const cleaned = name.replaceAll(/[^a-zA-Z0-9-]+/g, "-").replaceAll(/^-+|-+$/g, "")
  return cleaned === "" ? "sandbox" : cleaned
}
