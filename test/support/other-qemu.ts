/**
 * Another build of the host's QEMU, as an update of its package would install it. A daemon with mounts of its own sees
 * it in place of the host's, which is not touched.
 */

import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { findQemu } from "../../src/machine/fingerprint.ts"

export type OtherQemu = Disposable & {
  /** For `install`: starts the daemon, under the chosen QEMU. */
  launcher: string[]
  /** Its version and the installed one's, as packages name them. */
  names: { other: string; installed: string }
  /** Chooses for daemons that start from now on. */
  choose(which: "installed" | "other"): void
}

export function otherQemu(): OtherQemu {
  const home = mkdtempSync("/tmp/bhatti-test-")
  const { binary, name } = findQemu()
  const program = join(home, "qemu")
  copyFileSync(binary, program)
  const bytes = readFileSync(program)
  const [, packaged = name] = /(\S+?)\)?$/.exec(name) ?? []
  // The same length leaves all other bytes of the file in their places.
  const other = `${packaged.slice(0, -1)}x`
  const at = bytes.indexOf(packaged)
  if (at < 0) throw new Error(`${binary} does not contain its version ${packaged}`)
  bytes.write(other, at)
  writeFileSync(program, bytes, { mode: 0o755 })
  const chosen = join(home, "chosen")
  const script = `[ ! -e ${chosen} ] || mount --bind ${program} ${binary}; exec "$@"`
  return {
    launcher: ["unshare", "--mount", "sh", "-c", script, "sh"],
    names: { other, installed: packaged },
    choose(which) {
      if (which === "other") writeFileSync(chosen, "")
      else rmSync(chosen, { force: true })
    },
    [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true }),
  }
}
