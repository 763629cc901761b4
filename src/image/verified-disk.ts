/**
 * Checks an image's disk against the digest in its manifest. A verified disk gets a mark beside it: a faster
 * checksum of the same bytes, and the file's identity. The mark makes the next check six times as fast, and a start
 * need not wait for it.
 */
import { readFileSync, statSync } from "node:fs"
import { z } from "zod"
import { errorCodeOf } from "../lib/error-code.ts"
import { unlessMissing } from "../lib/missing-files.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { fileChecksum } from "../lib/sparse-file.ts"
import { commitText } from "./commit.ts"
import { diskDigest } from "./sparse.ts"

/** `disk` is the faster checksum; a kernel has none. */
const Mark = z.object({ digest: z.string(), disk: z.string().optional(), identity: z.string() })
type Mark = z.infer<typeof Mark>

export function markOf(file: string): string {
  return `${file}.checked`
}

/**
 * Changes with every write to the file and with every replacement, but not with its number of links. Returns
 * undefined if the file is missing.
 */
export function identityOf(file: string): string | undefined {
  const stat = statSync(file, { throwIfNoEntry: false, bigint: true })
  return stat && `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs}`
}

/** Returns true if this very file was verified before and has not been written to since by ordinary means. */
export function isVerified(file: string, digest: string): boolean {
  const mark = readMark(file)
  return mark?.digest === digest && mark.identity === identityOf(file)
}

type VerifyOptions = { pause?: () => Promise<void>; isKept?: boolean }

/** Reads the whole disk. Awaits `pause` after every part, for background checks. `isKept: false` writes no mark. */
export function verifyDisk(file: string, digest: string, options: VerifyOptions = {}): Promise<boolean> {
  return isReadable(readThrough(file, digest, options))
}

async function readThrough(file: string, digest: string, options: VerifyOptions): Promise<boolean> {
  const identity = identityOf(file)
  if (identity === undefined) return false
  const mark = readMark(file)
  const isKnown = mark?.digest === digest && mark.disk !== undefined
  if (!isKnown && (await diskDigest(file)) !== digest) return false
  const isKept = options.isKept ?? true
  if (!isKnown && !isKept) return true
  const checksum = await fileChecksum(file, options)
  if (isKnown && checksum !== mark.disk) return false
  if (isKept && !(isKnown && mark.identity === identity))
    await writeMark(file, { digest, disk: checksum, identity })
  return true
}

/** A read error of the host's disk counts as damage too. */
export async function isReadable(reading: Promise<boolean>): Promise<boolean> {
  try {
    return await reading
  } catch (error) {
    if (errorCodeOf(error) === "EIO") return false
    throw error
  }
}

/** Returns undefined if there is none, or a damaged one. */
export function readMark(file: string): Mark | undefined {
  const text = unlessMissing(() => readFileSync(markOf(file), "utf8"))
  return text === undefined ? undefined : Mark.safeParse(openSealedJson(text)).data
}

/** Without the mark the next check only takes longer. */
export async function writeMark(file: string, mark: Mark): Promise<void> {
  try {
    await commitText(markOf(file), sealJson(mark))
  } catch (error) {
    if (!["EACCES", "EROFS", "ENOSPC", "EDQUOT", "EPERM"].includes(errorCodeOf(error) ?? "")) throw error
  }
}
