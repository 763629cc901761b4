/** The builds of QEMU that an operator forbids, by `forbidden_qemu` in the configuration. */

import { AppError } from "@bhatti/contract/errors"
import type { QemuBuild } from "./fingerprint.ts"

type Named = Pick<QemuBuild, "version" | "name"> & { id?: string }

/**
 * An entry is the version of a package, which then means its rebuilds too (`+b1`), a version of QEMU, or the id of a
 * kept build.
 */
export function isForbidden({ version, name, id }: Named, forbidden: readonly string[]): boolean {
  // "Debian 1:7.2+dfsg-7+deb12u18+b3": the version is the last word.
  const packaged = /\((?:.* )?(\S+)\)$/.exec(name)?.[1]
  const names = [version, id, packaged, packaged?.replace(/\+b\d+$/, "")]
  return forbidden.some((entry) => names.includes(entry))
}

/** Throws if the QEMU that new machines would run is forbidden. */
export function checkAllowed(qemu: Named, forbidden: readonly string[]): void {
  if (!isForbidden(qemu, forbidden)) return
  throw new AppError("unavailable", `QEMU ${qemu.name} is installed, and forbidden_qemu forbids it`, {
    hint: "install another QEMU, or take it out of forbidden_qemu in config.yaml",
    retryable: false,
  })
}
