/**
 * Where the daemon is and which key to use, each with where it was found:
 * flag > configuration file > environment > default. The file is `~/.bhatti/config.yaml` or the one BHATTI_CONFIG names.
 */

import { AppError } from "../contract/errors.ts"
import { defaultApiUrl } from "../contract/limits.ts"

export type Settings = {
  url: string
  token: string | undefined
  /** For people, such as `~/.bhatti/config.yaml` or `BHATTI_TOKEN`. */
  tokenSource: string | undefined
}

export type Environment = Readonly<Record<string, string | undefined>>

export async function loadSettings(
  flags: { url: string | undefined; token: string | undefined },
  env: Environment,
): Promise<Settings> {
  const file = await readClientFile(env)
  const url = firstSet([
    [flags.url, "--url"],
    [file.apiUrl, file.path],
    [env.BHATTI_URL, "BHATTI_URL"],
    [defaultApiUrl, "the default"],
  ])
  const token = firstSet([
    [flags.token, "--token"],
    [file.authToken, file.path],
    [env.BHATTI_TOKEN, "BHATTI_TOKEN"],
  ])
  return {
    url: normalUrl(url?.value ?? defaultApiUrl, url?.source ?? ""),
    token: token === undefined ? undefined : checkedToken(token.value, token.source),
    tokenSource: token?.source,
  }
}

function firstSet(
  candidates: [value: string | undefined, source: string][],
): { value: string; source: string } | undefined {
  for (const [value, source] of candidates) if (value !== undefined && value !== "") return { value, source }
  return undefined
}

type ClientFile = { path: string; apiUrl: string | undefined; authToken: string | undefined }

async function readClientFile(env: Environment): Promise<ClientFile> {
  const named = env.BHATTI_CONFIG
  const path = named || `${await homeDir(env)}/.bhatti/config.yaml`
  const text = await readTextIfAny(path)
  if (text === undefined) {
    if (named)
      throw new AppError("invalid", `no configuration file at ${path}, which BHATTI_CONFIG names`, {
        hint: "bhatti setup   (or unset BHATTI_CONFIG)",
      })
    return { path, apiUrl: undefined, authToken: undefined }
  }
  const fields = parseYaml(text, path)
  return {
    path,
    apiUrl: textField(fields, "api_url", path),
    authToken: textField(fields, "auth_token", path),
  }
}

async function readTextIfAny(path: string): Promise<string | undefined> {
  try {
    return await Bun.file(path).text()
  } catch (error) {
    const code = error instanceof Error ? Reflect.get(error, "code") : undefined
    if (code === "ENOENT" || code === "ENOTDIR") return undefined
    throw badFile(path, `cannot be read (${String(code)})`, error)
  }
}

function parseYaml(text: string, path: string): object {
  let value: unknown
  try {
    value = Bun.YAML.parse(text)
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

/** A line break or a letter outside ASCII in a header would fail later with a message that helps nobody. */
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
