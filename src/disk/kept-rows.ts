/**
 * `record.json` beside each disk holds the row of its sandbox or snapshot, so that a lost database can be rebuilt.
 * `set-aside` holds directories that the database does not know, each with the reason, until the operator has
 * looked at them.
 */

import { mkdirSync, readdirSync, readFileSync } from "node:fs"
import { mkdir, rename } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { writeSynced } from "../lib/durable.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { isMissing, unlessMissing, whenMissing } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"

export type KeptKind = "sandbox" | "snapshot"

export const folderOf = { sandbox: "sandboxes", snapshot: "snapshots" } as const
const recordFile = "record.json"
const noteFile = "set-aside.json"

const Note = z.object({
  kind: z.enum(["sandbox", "snapshot", "database"]),
  id: z.string(),
  reason: z.string(),
  at: z.string(),
})
const LiesOn = z.object({ row: z.object({ template_id: z.string() }) })
export type SetAsideNote = z.infer<typeof Note> & { path: string }

export class KeptRows {
  readonly #dataDir: string

  constructor(options: { dataDir: string }) {
    this.#dataDir = options.dataDir
  }

  /** Returns false if the directory no longer exists. */
  async write(kind: KeptKind, id: string, text: string): Promise<boolean> {
    const path = join(this.directoryOf(kind, id), recordFile)
    const beside = `${path}.new`
    try {
      await writeSynced(beside, text, "w")
      await rename(beside, path)
      return true
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    }
  }

  /**
   * Returns the ids of the directories, each with its kept row as JSON, or undefined if the row is missing or
   * damaged.
   */
  read(kind: KeptKind): { id: string; row: unknown }[] {
    return this.#names(folderOf[kind])
      .filter((name) => !name.startsWith("tmp-"))
      .map((id) => ({ id, row: parseJson(readIfAny(join(this.directoryOf(kind, id), recordFile)) ?? "") }))
  }

  /** Moves the directory to `set-aside` with the reason. Returns its new path. */
  async setAside(kind: KeptKind, id: string, reason: string): Promise<string> {
    const to = await this.#placeFor(`${kind}-${id}`)
    await rename(this.directoryOf(kind, id), join(to, id))
    await this.#note(to, { kind, id, reason })
    return to
  }

  /** The database's own files that exist. */
  async setAsideDatabase(reason: string): Promise<string> {
    const to = await this.#placeFor("database")
    for (const name of ["bhatti.db", "bhatti.db-wal", "bhatti.db-shm"]) {
      await rename(join(this.#dataDir, name), join(to, name)).catch(whenMissing)
    }
    await this.#note(to, { kind: "database", id: "bhatti.db", reason })
    return to
  }

  /** Moves a directory back to its place. Returns false if the place is taken. */
  async putBack(note: SetAsideNote): Promise<boolean> {
    if (note.kind === "database") return false
    const to = this.directoryOf(note.kind, note.id)
    if (this.#names(folderOf[note.kind]).includes(note.id)) return false
    await mkdir(join(this.#dataDir, folderOf[note.kind]), { recursive: true, mode: 0o700 })
    await rename(join(note.path, note.id), to)
    return true
  }

  listSetAside(): SetAsideNote[] {
    return this.#names("set-aside").flatMap((name) => {
      const path = join(this.#dataDir, "set-aside", name)
      const note = Note.safeParse(parseJson(readIfAny(join(path, noteFile)) ?? ""))
      return note.success && readdirSync(path).length > 1 ? [{ ...note.data, path }] : []
    })
  }

  templatesUnderUnknown(known: ReadonlySet<string>): string[] | undefined {
    const aside = this.listSetAside()
      .filter(({ kind }) => kind !== "database")
      .map(({ path, id }) => parseJson(readIfAny(join(path, id, recordFile)) ?? ""))
    const unknown = [...this.read("sandbox"), ...this.read("snapshot")].filter(({ id }) => !known.has(id))
    const ids: string[] = []
    for (const row of [...aside, ...unknown.map(({ row }) => row)]) {
      const lain = LiesOn.safeParse(row)
      if (!lain.success) return undefined
      ids.push(lain.data.row.template_id)
    }
    return ids
  }

  directoryOf(kind: KeptKind, id: string): string {
    return join(this.#dataDir, folderOf[kind], id)
  }

  async #placeFor(what: string): Promise<string> {
    mkdirSync(join(this.#dataDir, "set-aside"), { recursive: true, mode: 0o700 })
    const time = new Date().toISOString().replaceAll(/[-:.]/g, "")
    const path = join(this.#dataDir, "set-aside", `${time}-${what}`)
    await mkdir(path, { mode: 0o700 })
    return path
  }

  async #note(directory: string, note: Omit<SetAsideNote, "at" | "path">): Promise<void> {
    const text = `${JSON.stringify({ ...note, at: new Date().toISOString() })}\n`
    await writeSynced(join(directory, noteFile), text, "w")
  }

  #names(folder: string): string[] {
    return unlessMissing(() => readdirSync(join(this.#dataDir, folder)).sort()) ?? []
  }
}

function readIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if (errorCodeOf(error) === "EISDIR") return undefined
    return whenMissing(error)
  }
}
