/**
 * Makes an error of the words that skopeo ended with. It has one exit code for every failure, so its words are all
 * there is; an unknown failure keeps them.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Ended } from "./confined.ts"

const kinds: readonly [RegExp, (subject: string) => AppError][] = [
  [
    /unauthorized|authentication required|access to the resource is denied|invalid username\/password|status 403/i,
    (subject) =>
      new AppError("forbidden", `the registry does not let you pull ${subject}`, {
        hint: "see that the name is right and that you are logged in there",
        reason: "registry_denied",
      }),
  ],
  [
    /manifest unknown|name unknown|not found|no such image/i,
    (subject) => new AppError("not_found", `the registry has no ${subject}`, { reason: "not_in_registry" }),
  ],
  [
    /x509|certificate|server gave HTTP response to HTTPS client|tls:/i,
    (subject) =>
      new AppError("unavailable", `the registry of ${subject} has no certificate that this host trusts`, {
        hint: "the operator names its certificates, or permits it without TLS, under registries in config.yaml",
        reason: "registry_certificate",
        retryable: false,
      }),
  ],
  [
    /connection refused|no such host|i\/o timeout|no route to host|network is unreachable|connection reset|operation not permitted/i,
    (subject) =>
      new AppError("unavailable", `the registry of ${subject} cannot be reached`, {
        hint: "an internal one must be listed under registries in config.yaml",
        reason: "registry_unreachable",
      }),
  ],
  [
    /digest|size mismatch|unexpected EOF/i,
    (subject) =>
      new AppError("unavailable", `the registry sent bytes of ${subject} that do not match their digest`, {
        reason: "wrong_digest",
      }),
  ],
]

export function errorOf(ended: Ended, subject: string): AppError {
  const words = lastWords(ended.stderr)
  const cause = new Error(words)
  if (ended.isLate)
    return new AppError("unavailable", `fetching ${subject} took too long`, { cause, reason: "too_slow" })
  if (ended.isTooMuch)
    return new AppError("too_large", `the manifest of ${subject} is too large`, { reason: "too_many_bytes" })
  for (const [pattern, make] of kinds) if (pattern.test(words)) return make(subject).but({ cause })
  return new AppError("unavailable", `fetching ${subject} failed`, { cause, hint: words.slice(-300) })
}

/** The text of its last log line. */
function lastWords(stderr: string): string {
  const line = stderr.trim().split("\n").at(-1) ?? ""
  return /msg="(.*)"$/.exec(line)?.[1] ?? line
}
