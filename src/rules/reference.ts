/**
 * References to images in registries, as Docker writes them: `[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST]`. Pure:
 * the operator's settings come in as values.
 */

import { AppError } from "@bhatti/contract/errors"
import { registryHost } from "../lib/registry-hosts.ts"

export type Reference = {
  /** With the port, in lower case. */
  host: string
  repository: string
  tag: string | null
  digest: string | null
}

const part = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
const pattern = new RegExp(
  `^(?:([a-zA-Z0-9][a-zA-Z0-9.-]{0,252}(?::\\d{1,5})?)/)?(${part}(?:/${part})*)(?::([\\w][\\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$`,
)

/** `defaultHost` completes a short name, such as `debian:12`; undefined: the operator has set none. */
export function parseReference(text: string, defaultHost: string | undefined): Reference {
  const [first = "", ...rest] = text.split("/")
  // As Docker decides it: otherwise the first part is one of the repository's name.
  const hasHost = rest.length > 0 && (/[.:]/.test(first) || first === "localhost" || /[A-Z]/.test(first))
  const found = pattern.exec(hasHost ? text : `placeholder.invalid/${text}`)
  const [, host, repository, tag, digest] = found ?? []
  if (host === undefined || repository === undefined || text.length > 255) {
    throw new AppError("invalid", `"${text}" is no reference to an image`, {
      hint: "a reference has the form [HOST[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST], in lower-case letters",
      reason: "bad_reference",
    })
  }
  const asked = hasHost ? host : defaultHost
  if (asked === undefined) {
    throw new AppError("invalid", `"${text}" names no registry, and this host has no default one`, {
      hint: `write HOST/${text}, or ask the operator to set default_registry in config.yaml`,
      reason: "no_default_registry",
    })
  }
  return {
    host: registryHost(asked),
    repository,
    tag: tag ?? (digest === undefined ? "latest" : null),
    digest: digest ?? null,
  }
}

/** The whole reference; one with a digest needs no tag. */
export function referenceText({ host, repository, tag, digest }: Reference): string {
  return `${host}/${repository}${tag === null ? "" : `:${tag}`}${digest === null ? "" : `@${digest}`}`
}

/** The name of an image that is pulled without one: short where the registry is the default one. */
export function nameFor(reference: Reference, defaultHost: string | undefined): string {
  const { host, repository, tag, digest } = reference
  const place = host === (defaultHost && registryHost(defaultHost)) ? repository : `${host}/${repository}`
  return tag === null ? `${place}@${digest}` : `${place}:${tag}`
}

/** Refuses a registry that the operator has not listed, if there is a list. */
export function checkAllowed(host: string, allowed: readonly string[]): void {
  if (allowed.length === 0 || allowed.some((one) => registryHost(one) === host)) return
  throw new AppError("forbidden", `the operator of this host does not allow the registry ${host}`, {
    hint: `allowed: ${allowed.join(", ")}`,
    reason: "registry_not_allowed",
  })
}
