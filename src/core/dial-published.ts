/**
 * Connects from an alias to the port behind it. No account is involved: anybody who knows the alias may connect, and it
 * leads only to that port of that sandbox.
 */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import { portName } from "../rules/input.ts"
import { awake } from "./awake.ts"
import type { Core, ForRequest } from "./core.ts"
import type { GuestConnection } from "./host.ts"

export type Dialled =
  | { kind: "connected"; connection: GuestConnection }
  | { kind: "unknown" }
  /** The sandbox is awake, but nothing listens on the port. */
  | { kind: "refused" }
  /** The guest's channel has reached its limit of connections; the remaining streams are kept for commands. */
  | { kind: "busy" }

const dialDeadlineMs = 10_000

/** Throws if the sandbox cannot be woken. */
export async function dialPublished(
  core: ForRequest & Pick<Core, "metrics">,
  alias: string,
): Promise<Dialled> {
  const published = await core.store.publishedPorts.findByAlias(alias)
  const record = published && (await core.store.sandboxes.get(published.sandboxId))
  if (!record || record.state.kind === "destroying") {
    core.metrics.published("unknown")
    return { kind: "unknown" }
  }
  const guest = await awake(core, record, `a request to published port ${published.port}`)
  if (guest.activity.openStreams >= limits.publishedStreamsMax) {
    core.metrics.published("refused")
    return { kind: "busy" }
  }
  const connection = guest.open({ op: "dial", port: published.port })
  // `connected` reports the failure too.
  connection.result.catch(() => undefined)
  const alarm = core.clock.after(dialDeadlineMs, () => connection.close())
  try {
    await connection.connected
    core.metrics.published("connected")
    return { kind: "connected", connection }
  } catch (error) {
    connection.close()
    const isRefused = error instanceof AppError && error.code === "unavailable"
    core.metrics.published(isRefused ? "refused" : "failed")
    if (isRefused) return { kind: "refused" }
    throw error
  } finally {
    alarm.cancel()
  }
}

/**
 * Returns the alias that a label stands for: its own, or that of a published port which is named PORT-ID, with the
 * digits of the sandbox's id.
 */
export async function aliasOf(core: Pick<Core, "store">, label: string): Promise<string> {
  const named = portName.exec(label)
  const id = named && SandboxId.safeParse(`sb_${named[2]}`)
  if (!named || !id?.success) return label
  const published = await core.store.publishedPorts.listOf([id.data])
  return published.find(({ port }) => port === Number(named[1]))?.alias ?? label
}

export async function isPublished(core: Pick<Core, "store">, alias: string): Promise<boolean> {
  return (await core.store.publishedPorts.findByAlias(alias)) !== undefined
}
