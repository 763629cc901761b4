/** A data directory has at most one daemon: the kernel releases its lock when the process ends, however it ends. */

import { closeSync, openSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { leadsNowhere } from "./lib/missing-files.ts"
import { tryLock } from "./lib/posix.ts"

export function lockDataDir(dataDir: string): Disposable {
  const fd = openLock(dataDir)
  if (!tryLock(fd)) {
    closeSync(fd)
    throw new AppError("conflict", `another bhatti daemon uses ${dataDir}`, {
      hint: "stop it first, or choose another directory with --data-dir",
    })
  }
  return { [Symbol.dispose]: () => closeSync(fd) }
}

function openLock(dataDir: string): number {
  try {
    return openSync(join(dataDir, "lock"), "a", 0o600)
  } catch (cause) {
    // A missing directory is not created: the path may be mistyped.
    if (leadsNowhere(cause)) {
      throw new AppError("not_found", `there is no data directory ${dataDir}`, {
        cause,
        hint: `sudo bhatti init --data-dir ${dataDir}`,
      })
    }
    throw new AppError("unavailable", `the data directory ${dataDir} cannot be written`, {
      cause,
      hint: "check that you own it and that its file system is not mounted read-only",
      retryable: false,
    })
  }
}
