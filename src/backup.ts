/**
 * `bhatti admin backup` and `bhatti admin restore`. The running daemon makes a backup; without a daemon, this process
 * takes its place meanwhile, since sandboxes may run without one. A restore needs neither daemon nor database.
 */

import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { Readable } from "node:stream"
import { AppError, isErrorCode, type Subject } from "@bhatti/contract/errors"
import { z } from "zod"
import { loadConfig } from "./config.ts"
import { type BackupResult, backUp as makeBackup } from "./core/backup.ts"
import { reconcile } from "./core/reconcile.ts"
import { openCore } from "./daemon.ts"
import { restoreBackup } from "./disk/backups.ts"
import { errorCodeOf } from "./lib/error-code.ts"
import { version } from "./lib/version.ts"
import { lockDataDir } from "./lock.ts"

export type BackupOptions = { dataDir: string; directory: string; report: (line: string) => void }

const Line = z.union([
  z.object({ progress: z.string() }),
  z.object({ result: z.custom<BackupResult>() }),
  z.object({
    error: z.object({
      code: z.string(),
      message: z.string(),
      hint: z.string().optional(),
      subject: z.custom<Subject>().optional(),
    }),
  }),
])

export async function backUp(options: BackupOptions): Promise<BackupResult> {
  const directory = resolve(options.directory)
  try {
    return await askDaemon({ ...options, directory })
  } catch (error) {
    const code = errorCodeOf(error) ?? ""
    if (!/ENOENT|ECONNREFUSED|ConnectionRefused|FailedToOpenSocket/.test(code)) throw error
  }
  return await withoutDaemon({ ...options, directory })
}

async function askDaemon({ dataDir, directory, report }: BackupOptions): Promise<BackupResult> {
  const reply = await fetch("http://operator/backup", {
    method: "POST",
    unix: join(dataDir, "operator.sock"),
    body: JSON.stringify({ directory }),
    // No timeout: the work takes as long as the disks need.
    timeout: false,
  } as RequestInit)
  if (!reply.ok || !reply.body)
    throw new AppError("unavailable", "the daemon makes no backups", {
      hint: "is it of another version? restart it",
    })
  for await (const text of createInterface({ input: Readable.from(reply.body) })) {
    const line = Line.parse(JSON.parse(text))
    if ("progress" in line) report(line.progress)
    else if ("result" in line) return line.result
    else {
      const { code, message, hint, subject } = line.error
      throw new AppError(isErrorCode(code) ? code : "internal", message, { hint, subject })
    }
  }
  throw new AppError("unavailable", "the daemon ended while it made the backup", {
    hint: "the backup is incomplete; remove it and try again",
  })
}

async function withoutDaemon({ dataDir, directory, report }: BackupOptions): Promise<BackupResult> {
  process.umask(0o077)
  using _lock = lockDataDir(dataDir)
  const config = loadConfig({ dataDir }, {})
  const quiet = { info() {}, warn() {}, error: console.error }
  await using opened = await openCore({ ...config, pool: 0, data_dir: dataDir }, quiet)
  const { core, network } = opened
  const { settled } = await reconcile(core)
  await settled
  try {
    return await makeBackup(core, { directory, version, signal: new AbortController().signal, report })
  } finally {
    await network?.close()
  }
}

export async function restore(options: {
  from: string
  dataDir: string
  report: (line: string) => void
}): Promise<{ at: string; version: string }> {
  process.umask(0o077)
  const [from, dataDir] = [resolve(options.from), resolve(options.dataDir)]
  return await restoreBackup({ from, dataDir, report: options.report })
}
