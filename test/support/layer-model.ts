/**
 * How layers are merged, in memory and in few lines, after the OCI image specification: a layer's whiteouts apply to
 * what is below it, then its entries in their order; hard links whose target comes later are added last. It is
 * written without a look at the unpacker, and knows no limits.
 */
import type { TarEntry } from "./tar-bytes.ts"

export type Modelled = {
  kind: string
  mode: number
  uid: number
  text: string
  children: Map<string, Modelled>
}

const made = (kind: string, mode: number, uid = 0, text = ""): Modelled => ({
  kind,
  mode,
  uid,
  text,
  children: new Map(),
})

class Refused extends Error {}

/** Returns undefined if an image of these layers is refused. */
export function mergeLayers(layers: TarEntry[][]): Modelled | undefined {
  const root = made("5", 0o755)
  try {
    for (const layer of layers) mergeLayer(root, layer)
    return root
  } catch (error) {
    if (error instanceof Refused) return undefined
    throw error
  }
}

function partsOf(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..")) throw new Refused()
  return parts
}

/** The directory that the parts name, links followed inside the root; made where it is missing, or undefined. */
function enter(root: Modelled, parts: string[], isMade: boolean): Modelled | undefined {
  const way = [root]
  const left = [...parts]
  for (let hops = 0; left.length > 0; ) {
    const part = left.shift() ?? ""
    const at = way.at(-1) ?? root
    if (part === "" || part === ".") continue
    if (part === "..") {
      if (way.length > 1) way.pop()
      continue
    }
    if (isMade && !at.children.has(part)) at.children.set(part, made("5", 0o755))
    const next = at.children.get(part)
    if (next?.kind === "5") way.push(next)
    else if (next?.kind === "2") {
      if (++hops > 40) throw new Refused()
      if (next.text.startsWith("/")) way.splice(1)
      left.unshift(...next.text.split("/"))
    } else if (next === undefined || !isMade) return undefined
    else throw new Refused()
  }
  return way.at(-1)
}

function mergeLayer(root: Modelled, layer: TarEntry[]): void {
  const entries = layer.map((entry) => ({
    entry,
    parts: partsOf(entry.name),
    to: partsOf(entry.type === "1" ? (entry.linkname ?? "") : ""),
  }))
  for (const { parts } of entries) {
    if (parts.slice(0, -1).some((part) => part.startsWith(".wh."))) throw new Refused()
    const name = parts.at(-1) ?? ""
    if (!name.startsWith(".wh.")) continue
    const folder = enter(root, parts.slice(0, -1), false)
    if (name === ".wh..wh..opq") folder?.children.clear()
    else folder?.children.delete(name.slice(4))
  }
  let waiting = entries.filter(({ parts }) => !parts.at(-1)?.startsWith(".wh."))
  for (let before = -1; waiting.length > 0 && waiting.length !== before; ) {
    before = waiting.length
    waiting = waiting.filter(({ entry, parts, to }) => !add(root, entry, parts, to))
    if (waiting.length === before) throw new Refused()
  }
}

/** Returns false for a hard link whose target is missing so far. */
function add(root: Modelled, entry: TarEntry, parts: string[], to: string[]): boolean {
  const { type = "0", mode = 0o644, uid = 0, linkname = "", content = "" } = entry
  const name = parts.at(-1)
  if (name === undefined) {
    if (type !== "5") throw new Refused()
    Object.assign(root, { mode, uid })
    return true
  }
  const folder = enter(root, parts.slice(0, -1), true)
  const there = folder?.children.get(name)
  if (type === "1") {
    if (to.length === 0) throw new Refused()
    const target = enter(root, to.slice(0, -1), false)?.children.get(to.at(-1) ?? "")
    if (target?.kind === "5") throw new Refused()
    if (target === undefined) return false
    folder?.children.set(name, target)
  } else if (type === "5" && there?.kind === "5") Object.assign(there, { mode, uid })
  else
    folder?.children.set(
      name,
      made(type, type === "2" ? 0o777 : mode, uid, type === "2" ? linkname : `${content}`),
    )
  return true
}
