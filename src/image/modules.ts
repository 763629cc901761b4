/**
 * Reads depmod's `modules.dep` and decides which module files a list of wanted modules needs, and their load order.
 * Pure: text in, paths out.
 */
import { basename } from "node:path"
import { AppError } from "@bhatti/contract/errors"

/** Each module's path below /lib/modules/VERSION, with the paths it needs, in load order. */
export type ModuleDependencies = ReadonlyMap<string, readonly string[]>

export function parseModulesDep(text: string): ModuleDependencies {
  const dependencies = new Map<string, readonly string[]>()
  for (const line of text.split("\n")) {
    const [path, needed] = line.split(":")
    if (path === undefined || needed === undefined) continue
    // depmod lists all dependencies, indirect ones too, the first to load last.
    dependencies.set(path, needed.split(" ").filter(Boolean).reverse())
  }
  return dependencies
}

/**
 * Returns the files for the wanted modules and all their dependencies, each once, dependencies first. An entry is a
 * module's name (`-` and `_` are the same, as for modprobe) or a folder like `kernel/crypto/`.
 */
export function loadOrder(dependencies: ModuleDependencies, wanted: readonly string[]): string[] {
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]))
  const ordered = new Set<string>()
  for (const wish of wanted) {
    for (const path of pathsFor(wish, byName)) {
      for (const needed of dependencies.get(path) ?? []) ordered.add(needed)
      ordered.add(path)
    }
  }
  return [...ordered]
}

/** `kernel/fs/fuse/fuse.ko.xz` is `fuse`. */
export function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.\w+)?$/, "")
    .replaceAll("-", "_")
}

function pathsFor(wish: string, byName: ReadonlyMap<string, string>): string[] {
  const found = wish.endsWith("/")
    ? [...byName.values()].filter((path) => path.startsWith(wish))
    : [byName.get(moduleName(wish))].filter((path) => path !== undefined)
  if (found.length === 0) throw new AppError("not_found", `the kernel package has no module ${wish}`)
  return found
}
