/** Processes of another user of the host that have the words of a machine: its own, and those of a QEMU of theirs. */

import { Database } from "bun:sqlite"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Installation } from "./installation.ts"

const nobody = 65_534

export type Decoys = AsyncDisposable & {
  /** The decoys that still live. */
  living(): number[]
  readonly all: number[]
}

/** `words` are the machine's. */
export async function startDecoys(words: string[], uid: number = nobody): Promise<Decoys> {
  const user = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"]
  const name = words[words.indexOf("-name") + 1] ?? ""
  const same = Bun.spawn([...user, "/usr/bin/python3", join(import.meta.dir, "decoy.py"), ...words], {
    stdout: "pipe",
  })
  const qemu = ["/usr/bin/qemu-system-x86_64", "-name", name, "-machine", "none", "-nodefaults"]
  const children = [same, Bun.spawn([...user, ...qemu, "-display", "none"])]
  await same.stdout.getReader().read()
  return {
    all: children.map(({ pid }) => pid),
    living: () =>
      children.filter((child) => child.exitCode === null && child.signalCode === null).map(({ pid }) => pid),
    async [Symbol.asyncDispose]() {
      for (const child of children) child.kill("SIGKILL")
      await Promise.all(children.map((child) => child.exited))
    },
  }
}

export function wordsOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1)
}

/** Sets the database to a daemon's kill at another moment. Call it while no daemon runs. */
export function setState(own: Installation, name: string, state: object): void {
  using db = new Database(join(own.dataDir, "bhatti.db"))
  db.run("update sandboxes set state = ? where name = ?", [JSON.stringify(state), name])
}
