/**
 * Checks that a data directory's database belongs to it. A database that is missing, empty, damaged, outdated or of
 * another installation knows nothing about the sandboxes beside it, and must not decide about them.
 */

import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { unlessMissing, whenNowhere } from "../lib/missing-files.ts"
import { isRecovering, markPath, readMark } from "./mark.ts"
import { inspect } from "./sqlite/file.ts"

export type Fault = "missing" | "empty" | "damaged" | "older" | "foreign" | "unfinished"

export type Belonging =
  /** There is no database, and no sign that there ever was one. */
  | { kind: "new" }
  /** `markProblem` says why the mark has to be rewritten. */
  | { kind: "fits"; markProblem: "missing" | "damaged" | undefined }
  | { kind: "misfit"; fault: Fault }

export function databasePath(dataDir: string): string {
  return join(dataDir, "bhatti.db")
}

export function belongingOf(dataDir: string): Belonging {
  const mark = readMark(dataDir)
  const size = statSync(databasePath(dataDir), { throwIfNoEntry: false })?.size
  if (!size) {
    if (mark === "missing" && countIn(dataDir).every(({ count }) => count === 0)) return { kind: "new" }
    return misfit(size === undefined ? "missing" : "empty")
  }
  const inspected = inspect(databasePath(dataDir))
  if (inspected.kind === "damaged") return misfit("damaged")
  if (isRecovering(dataDir)) return misfit("unfinished")
  if (inspected.kind === "unreadable") return { kind: "fits", markProblem: undefined }
  if (mark === "missing" || mark === "damaged") return { kind: "fits", markProblem: mark }
  // A database without a mark is from before marks were introduced.
  if (!inspected.mark) return misfit("older")
  if (inspected.mark.id !== mark.id) return misfit("foreign")
  return inspected.mark.counter < mark.counter ? misfit("older") : { kind: "fits", markProblem: undefined }
}

function misfit(fault: Fault): Belonging {
  return { kind: "misfit", fault }
}

/** Counts the sandboxes and snapshots beside the database. */
export function countIn(dataDir: string): { what: string; count: number }[] {
  return ["sandbox", "snapshot"].map((what) => {
    const directory = join(dataDir, what === "sandbox" ? "sandboxes" : "snapshots")
    const names = unlessMissing(() => readdirSync(directory), whenNowhere) ?? []
    return { what, count: names.filter((name) => !name.startsWith("tmp-")).length }
  })
}

const faultWords: Record<Fault, string> = {
  missing: "is missing",
  empty: "is empty",
  damaged: "is damaged",
  older: "is older than its data directory",
  foreign: "belongs to another installation",
  unfinished: "is incomplete: its recovery did not finish",
}

export function refusal(dataDir: string, fault: Fault): AppError {
  const beside = countIn(dataDir)
    .map(
      ({ what, count }) => `${count} ${count === 1 ? what : what === "sandbox" ? "sandboxes" : "snapshots"}`,
    )
    .join(" and ")
  return new AppError(
    "unavailable",
    `the database ${databasePath(dataDir)} ${faultWords[fault]}; beside it are ${beside}`,
    {
      hint: `nothing was changed. Put the right one back, or have it rebuilt: sudo bhatti admin recover --data-dir ${dataDir}`,
      retryable: false,
    },
  )
}

/** Wording for logs only. */
export function markNote(dataDir: string, problem: "missing" | "damaged"): string {
  return `${markPath(dataDir)} was ${problem} and is written again; it is unknown whether the database is an older one`
}
