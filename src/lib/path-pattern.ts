/**
 * Patterns of paths, as Go's `filepath.Match` reads them, and those of ignore files, which know `**` too. A pattern
 * becomes a regular expression without nested repetitions.
 */

/** `*` and `?` stay within a name. Throws a `SyntaxError` if the pattern is malformed. */
export function patternOf(pattern: string): RegExp {
  return new RegExp(`^${bodyOf(pattern, { hasDoubleStar: false })}$`, "s")
}

export function hasWildcard(pattern: string): boolean {
  return /[*?[\\]/.test(pattern)
}

/** Also matches everything below a directory that it matches. */
export function ignorePatternOf(pattern: string): RegExp {
  return new RegExp(`^${bodyOf(pattern, { hasDoubleStar: true })}(/.*)?$`, "s")
}

function bodyOf(pattern: string, { hasDoubleStar }: { hasDoubleStar: boolean }): string {
  let out = ""
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at] ?? ""
    if (char === "*" && hasDoubleStar && pattern[at + 1] === "*") {
      at++
      if (pattern[at + 1] === "/") {
        at++
        out += "(?:.*/)?"
      } else out += ".*"
    } else if (char === "*") out += "[^/]*"
    else if (char === "?") out += "[^/]"
    else if (char === "[") {
      const end = pattern.indexOf("]", at + 2)
      if (end < 0) throw new SyntaxError(`"${pattern}" has a [ without a ]`)
      const inside = pattern.slice(at + 1, end)
      out += `[${inside.replace(/^[!^]/, "^").replaceAll("\\", "\\\\").replaceAll("[", "\\[")}]`
      at = end
    } else if (char === "\\" && at + 1 < pattern.length) out += literal(pattern[++at] ?? "")
    else out += literal(char)
  }
  return out
}

function literal(char: string): string {
  return char.replace(/[.*+?^${}()|[\]\\/-]/, "\\$&")
}
