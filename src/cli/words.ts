/** Numbers and times as readable text. */

export function cpusText(cpus: number): string {
  return cpus === 1 ? "1 cpu" : `${cpus} cpus`
}

export function secondsText(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`
}

export function sizeText(mib: number): string {
  return mib >= 1024 && mib % 1024 === 0 ? `${mib / 1024} GB` : `${mib} MB`
}

export function ageText(since: string, nowMs: number): string {
  return `${spanText(Math.max(0, Math.floor((nowMs - Date.parse(since)) / 1000)))} ago`
}

/** A duration in its largest unit, rounded down. */
export function spanText(seconds: number): string {
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`
}

/** Makes a name chosen by another user safe to print on one line: escapes control characters and the like. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069\\]/gu, (letter) => {
    const known = escapes[letter]
    if (known !== undefined) return known
    const code = letter.codePointAt(0) ?? 0
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
  })
}

const escapes: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\" }

/** Bytes as `482 B`, `1.4 MB`. */
export function bytesText(bytes: number): string {
  let value = bytes
  for (const unit of ["B", "KB", "MB"]) {
    if (value < 1000) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`
    value /= 1000
  }
  return `${value.toFixed(1)} GB`
}

/** Singular or plural: `1 file`, `3 files`. */
export function countText(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`
}

export function labelsText(labels: Record<string, string>): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  return pairs.join(",") || "-"
}
