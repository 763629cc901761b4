/**
 * The daemon's address, the key and the trusted certificates, each with its source: flag > configuration file >
 * environment > default. The file is `~/.bhatti/config.yaml` or the one BHATTI_CONFIG names.
 */

import { dirname, resolve } from "node:path"

import { AppError } from "@bhatti/contract/errors"
import { defaultApiUrl } from "@bhatti/contract/limits"
import { errorCodeOf } from "../lib/error-code.ts"

export type Settings = {
  url: string
  token: string | undefined
  /** Readable source, such as `~/.bhatti/config.yaml` or `BHATTI_TOKEN`. */
  tokenSource: string | undefined
  /** Certificates trusted in place of the machine's, as PEM; only read for an address with https. */
  ca?: string | undefined
}

/** Keys of the file that this program reads. */
export const clientKeys = ["api_url", "auth_token", "ca_file"] as const
export type GivenSettings = { url: string | undefined; token: string | undefined; ca?: string | undefined }

export type Environment = Readonly<Record<string, string | undefined>>

/** The configuration file as found, not yet parsed: reading starts with the process, long before it is needed. */
export type ClientFile = {
  path: string
  isNamedByUser: boolean
  content: { text: string | undefined } | { cause: unknown }
}

export async function readClientFile(env: Environment): Promise<ClientFile> {
  const path = env.BHATTI_CONFIG || `${await homeDir(env)}/.bhatti/config.yaml`
  return { path, isNamedByUser: Boolean(env.BHATTI_CONFIG), content: await readIfAny(path) }
}

export async function loadSettings(
  flags: GivenSettings,
  env: Environment,
  reading: Promise<ClientFile> = readClientFile(env),
): Promise<Settings> {
  const file = await reading
  const fields = fieldsOf(file)
  const url = firstSet([
    [flags.url, "--url"],
    [textField(fields, "api_url", file.path), file.path],
    [env.BHATTI_URL, "BHATTI_URL"],
  ]) ?? { value: defaultApiUrl, source: "the default" }
  const token = firstSet([
    [flags.token, "--token"],
    [textField(fields, "auth_token", file.path), file.path],
    [env.BHATTI_TOKEN, "BHATTI_TOKEN"],
  ])
  const ca = firstSet([
    [flags.ca, "--ca"],
    [caFileOf(fields, file.path), file.path],
    [env.BHATTI_CA, "BHATTI_CA"],
  ])
  const address = normalUrl(url.value, url.source)
  return {
    url: address,
    token: token && checkedToken(token.value, token.source),
    tokenSource: token?.source,
    ...(ca && address.startsWith("https:") && { ca: await readCertificates(ca.value, ca.source) }),
  }
}

/** Returns keys in the file that neither this program nor a daemon that shares the file reads. */
export async function unknownKeys(reading: Promise<ClientFile>): Promise<string[]> {
  const file = await reading
  if (!("text" in file.content) || file.content.text === undefined) return []
  const others = Object.keys(fieldsOf(file)).filter((key) => !clientKeys.some((known) => known === key))
  if (others.length === 0) return []
  const { configKeys } = await import("@bhatti/contract/config")
  return others.filter((key) => !configKeys.includes(key))
}

export async function readCertificates(path: string, source: string): Promise<string> {
  const hint = "it is a file with the certificate of your authority, as text (PEM)"
  let text: string
  try {
    text = await Bun.file(path).text()
  } catch (cause) {
    const message = `the certificates at ${path}, from ${source}, cannot be read (${errorCodeOf(cause)})`
    throw new AppError("invalid", message, { cause, hint })
  }
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text
  throw new AppError("invalid", `${path}, from ${source}, holds no certificate`, { hint })
}

/** Returns the file's own settings; none if it is missing. */
export function readSaved(file: ClientFile): {
  url: string | undefined
  token: string | undefined
  caFile: string | undefined
} {
  const isMissing = "text" in file.content && file.content.text === undefined
  const fields = isMissing ? {} : fieldsOf(file)
  return {
    url: textField(fields, "api_url", file.path),
    token: textField(fields, "auth_token", file.path),
    caFile: caFileOf(fields, file.path),
  }
}

/** A path in the file is relative to the file. */
function caFileOf(fields: object, path: string): string | undefined {
  const saved = textField(fields, "ca_file", path)
  return saved && resolve(dirname(path), saved)
}

export function checkedUrl(given: string): string {
  return normalUrl(given, "setup")
}

/** Returns both normalised, or throws an error that names the invalid one. */
export function checkedSettings(given: { url: string; token: string }): { url: string; token: string } {
  return { url: normalUrl(given.url, "setup"), token: checkedToken(given.token, "setup") }
}

function firstSet(
  candidates: [value: string | undefined, source: string][],
): { value: string; source: string } | undefined {
  for (const [value, source] of candidates) if (value !== undefined && value !== "") return { value, source }
  return undefined
}

async function readIfAny(path: string): Promise<ClientFile["content"]> {
  try {
    return { text: await Bun.file(path).text() }
  } catch (cause) {
    const code = errorCodeOf(cause)
    return code === "ENOENT" || code === "ENOTDIR" ? { text: undefined } : { cause }
  }
}

function fieldsOf({ path, isNamedByUser, content }: ClientFile): object {
  if ("cause" in content) throw badFile(path, `cannot be read (${errorCodeOf(content.cause)})`, content.cause)
  if (content.text === undefined) {
    if (!isNamedByUser) return {}
    throw new AppError("invalid", `no configuration file at ${path}, which BHATTI_CONFIG names`, {
      hint: "unset BHATTI_CONFIG, or write the file with: bhatti setup",
    })
  }
  let value: unknown
  try {
    value = Bun.YAML.parse(content.text)
  } catch (error) {
    throw badFile(path, "is not valid YAML", error)
  }
  if (value === null || value === undefined) return {}
  if (typeof value !== "object" || Array.isArray(value))
    throw badFile(path, "must hold lines of `key: value`")
  return value
}

function textField(fields: object, key: string, path: string): string | undefined {
  const value: unknown = Reflect.get(fields, key)
  if (value === undefined || value === null) return undefined
  if (typeof value !== "string") throw badFile(path, `has an ${key} that is not text`)
  return value
}

function badFile(path: string, problem: string, cause?: unknown): AppError {
  return new AppError("invalid", `the configuration file ${path} ${problem}`, {
    cause,
    hint: "correct it, or write it again with: bhatti setup",
  })
}

function normalUrl(text: string, source: string): string {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`)
  if (url === null || !/^https?:$/.test(url.protocol) || url.hostname === "")
    throw new AppError("invalid", `"${text}" from ${source} is not the address of a daemon`, {
      hint: `it looks like ${defaultApiUrl}`,
    })
  return `${url.origin}${url.pathname}`.replace(/\/+$/, "")
}

/** A line break or a non-ASCII letter in a header would fail later with an unhelpful message. */
function checkedToken(token: string, source: string): string {
  const trimmed = token.trim()
  if (/^[\x21-\x7e]+$/.test(trimmed)) return trimmed
  throw new AppError("invalid", `the key from ${source} holds characters that no key has`)
}

/** Under sudo the settings are still those of the person who typed the command. */
async function homeDir(env: Environment): Promise<string> {
  if (!env.SUDO_USER && env.HOME) return env.HOME
  const { findCaller } = await import("../lib/caller.ts")
  return findCaller(env).home
}
