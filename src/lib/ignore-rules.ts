/** Ignore files of builds, such as `.dockerignore`: patterns of paths, of which the last one that matches decides. */

import { ignorePatternOf } from "./path-pattern.ts"

export type IgnoreRule = { pattern: RegExp; isException: boolean }

export function readIgnoreRules(text: string): IgnoreRule[] {
  const rules: IgnoreRule[] = []
  for (const line of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    if (line.startsWith("#")) continue
    const trimmed = line.trim()
    const isException = trimmed.startsWith("!")
    const parts = trimmed
      .replace(/^!/, "")
      .trim()
      .split("/")
      .filter((part) => part !== "" && part !== ".")
    if (parts.length > 0) rules.push({ pattern: ignorePatternOf(parts.join("/")), isException })
  }
  return rules
}

export function ignores(rules: readonly IgnoreRule[], path: string): boolean {
  return rules.findLast(({ pattern }) => pattern.test(path))?.isException === false
}
