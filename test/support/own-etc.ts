/** An /etc of a test's own for a daemon, a copy of the host's, so that a test can change the host's files under it. */

import { cpSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

export type OwnEtc = Disposable & {
  /** For `install`: starts a program that sees it as /etc. */
  launcher: string[]
  /** Replaces a file, as programs do that change such files. */
  write(name: string, text: string): void
}

export function ownEtc(): OwnEtc {
  const home = mkdtempSync("/tmp/bhatti-test-")
  const etc = join(home, "etc")
  cpSync("/etc", etc, { recursive: true, verbatimSymlinks: true })
  return {
    launcher: ["unshare", "--mount", "sh", "-c", `mount --bind ${etc} /etc && exec "$@"`, "sh"],
    write(name, text) {
      writeFileSync(join(home, name), text)
      rmSync(join(etc, name), { recursive: true, force: true })
      renameSync(join(home, name), join(etc, name))
    },
    [Symbol.dispose]: () => rmSync(home, { recursive: true, force: true }),
  }
}
