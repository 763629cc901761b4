/**
 * Names of images among the host's files. A user's image is named by where it is from and by the digest of its
 * manifest, so that equal images of a registry share a disk; no request may use such a name.
 */

import { createHash } from "node:crypto"

const prefix = "oci-"

/** `origin` is the registry, or for a file its user: a digest alone proves no right to the content. */
export function diskNameOf(origin: string, manifestDigest: string): string {
  return `${prefix}${createHash("sha256").update(`${origin} ${manifestDigest}`).digest("hex")}`
}

export function isDiskName(name: string): boolean {
  return name.startsWith(prefix)
}
