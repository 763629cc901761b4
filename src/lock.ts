/** One daemon per data directory: a lock that the kernel gives up when the process ends, however it ends. */

import { closeSync, mkdirSync, openSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "./contract/errors.ts"
import { tryLock } from "./lib/posix.ts"

export function lockDataDir(dataDir: string): Disposable {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const fd = openSync(join(dataDir, "lock"), "a", 0o600)
  if (!tryLock(fd)) {
    closeSync(fd)
    throw new AppError("conflict", `another bhatti daemon uses ${dataDir}`, {
      hint: "stop it first, or choose another directory with --data-dir",
    })
  }
  return { [Symbol.dispose]: () => closeSync(fd) }
}
