/** Ids on e2b's wire: a host name has a sandbox's as one part of a label, so it has hexadecimal digits alone. */

import { AppError } from "@bhatti/contract/errors"
import { SandboxId } from "@bhatti/contract/ids"

const prefix = "sb_"

export function wireId(id: string): string {
  return id.slice(prefix.length)
}

/** Throws if no sandbox can have that id: names are no ids. */
export function sandboxIdOf(wireId: string): SandboxId {
  const id = SandboxId.safeParse(`${prefix}${wireId}`)
  if (id.success) return id.data
  throw new AppError("not_found", `sandbox "${wireId}" was not found`)
}

/** A key in the form that older SDKs insist on is the key of this daemon with another beginning. */
export function keyOf(wireKey: string | null): string | undefined {
  return wireKey?.replace(/^e2b_/, "bht_")
}
