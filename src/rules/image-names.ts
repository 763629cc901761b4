/**
 * Names of images among the host's files. A user's image is named by the digest of its manifest, so that images with
 * the same content share a disk; no request may use such a name.
 */

const prefix = "oci-"

/** Returns the name on disk of the image with that manifest, `sha256:` and 64 hexadecimal digits. */
export function diskNameOf(manifestDigest: string): string {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(manifestDigest)?.[1]
  if (hex === undefined) throw new Error(`${manifestDigest} is no digest`)
  return `${prefix}${hex}`
}

export function isDiskName(name: string): boolean {
  return name.startsWith(prefix)
}
