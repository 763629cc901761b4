/**
 * Reads depmod's `modules.dep` and decides which module files a list of wanted modules needs, and their load order.
 * Pure: text in, paths out.
 */
import { basename } from "node:path"
import { AppError } from "@bhatti/contract/errors"

/** Modules that load on their own, and the paths of those that are parts of the kernel itself. */
export type Modules = { dependencies: ModuleDependencies; builtIn: readonly string[] }

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

/** Reads `modules.builtin`. */
export function parseModulesBuiltIn(text: string): string[] {
  return text.split("\n").filter(Boolean)
}

/**
 * Returns the files for the wanted modules and all their dependencies, each once, dependencies first. An entry is a
 * module's name (`-` and `_` are the same, as for modprobe) or a folder like `kernel/crypto/`. Built-in ones need none.
 */
export function loadOrder({ dependencies, builtIn }: Modules, wanted: readonly string[]): string[] {
  const all = [...dependencies.keys()]
  const ordered = new Set<string>()
  for (const wish of wanted) {
    const paths = pathsFor(wish, all)
    if (paths.length + pathsFor(wish, builtIn).length === 0)
      throw new AppError("not_found", `the kernel package has no module ${wish}`)
    for (const path of paths) {
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

function pathsFor(wish: string, paths: readonly string[]): string[] {
  return wish.endsWith("/")
    ? paths.filter((path) => path.startsWith(wish))
    : paths.filter((path) => moduleName(path) === moduleName(wish))
}
