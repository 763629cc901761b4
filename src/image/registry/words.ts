/**
 * Makes an error of the words that skopeo ended with. It has one exit code for every failure, so its words are all
 * there is; an unknown failure keeps them, without the credential.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Ended } from "./confined.ts"

type Verb = "pull" | "push"

const kinds: readonly [RegExp, (subject: string, verb: Verb) => AppError][] = [
  [
    /unauthorized|authentication required|access to the resource is denied|invalid username\/password|status 403/i,
    (subject, verb) =>
      new AppError("forbidden", `the registry does not let you ${verb} ${subject}`, {
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
  ...(
    [
      [/connection refused/i, "nothing listens at its port"],
      [/no such host/i, "its name is unknown"],
      [/i\/o timeout/i, "it does not answer"],
      [/no route to host|network is unreachable/i, "this host has no way to its network"],
      [/connection reset/i, "it broke the connection off"],
      [/operation not permitted/i, "its address is not public, and this host does not permit it"],
    ] as const
  ).map(([words, cause]): [RegExp, (subject: string) => AppError] => [words, unreachable(cause)]),
  [
    /digest|size mismatch|unexpected EOF/i,
    (subject) =>
      new AppError("unavailable", `the registry sent bytes of ${subject} that do not match their digest`, {
        reason: "wrong_digest",
      }),
  ],
]

function unreachable(cause: string): (subject: string) => AppError {
  return (subject) => {
    const registry = subject.split("/")[0]
    return new AppError("unavailable", `the registry ${registry} cannot be reached: ${cause}`, {
      hint: "see that its name and port are right, and try again; the operator lists an internal one under registries in config.yaml",
      reason: "registry_unreachable",
    })
  }
}

type Credential = { username: string; password: string }

/** For a registry that takes the connection and says nothing until the deadline. */
export function noAnswer(host: string): AppError {
  return new AppError("unavailable", `the registry ${host} does not answer`, {
    hint: "see that its name and port are right, or try again later",
    reason: "registry_silent",
  })
}

/** For a registry that stops in the middle. */
export function noByte(host: string, stallMs: number): AppError {
  const seconds = Math.round(stallMs / 1000)
  return new AppError("unavailable", `no byte went to or came from the registry ${host} for ${seconds} s`, {
    hint: "try again later; layers that are complete are not fetched again",
    reason: "registry_silent",
  })
}

export function errorOf(
  ended: Ended,
  subject: string,
  credential: Credential | undefined,
  verb: Verb = "pull",
): AppError {
  const doing = verb === "pull" ? "fetching" : "pushing"
  const words = lastWords(ended.stderr)
  const shown = redacted(words, credential)
  const cause = new Error(shown)
  if (ended.isLate)
    return new AppError("unavailable", `${doing} ${subject} took too long`, { cause, reason: "too_slow" })
  if (ended.isTooMuch)
    return new AppError("too_large", `the manifest of ${subject} is too large`, { reason: "too_many_bytes" })
  for (const [pattern, make] of kinds) if (pattern.test(words)) return make(subject, verb).but({ cause })
  return new AppError("unavailable", `${doing} ${subject} failed`, { cause, hint: shown.slice(-300) })
}

/** The text of its last log line. */
function lastWords(stderr: string): string {
  const line = stderr.trim().split("\n").at(-1) ?? ""
  return /msg="(.*)"$/.exec(line)?.[1] ?? line
}

/** A registry may answer with what it was sent. Longer forms go first: they hold shorter ones. */
function redacted(words: string, credential: Credential | undefined): string {
  if (!credential) return words
  const { username, password } = credential
  const encoded = [`${username}:${password}`, password].flatMap((text) => {
    const bytes = Buffer.from(text)
    return (["base64", "base64url"] as const).map((encoding) => bytes.toString(encoding))
  })
  const plain = [password, JSON.stringify(password).slice(1, -1), encodeURIComponent(password)]
  const forms = [...encoded, ...plain].filter((form) => form !== "")
  forms.sort((one, other) => other.length - one.length)
  return forms.reduce((text, form) => text.replaceAll(form, "[redacted]"), words)
}
