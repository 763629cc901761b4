/**
 * Credentials of a registry, from where this machine's user has them: the files of Podman and Docker, and Docker's
 * helper programs. They are read and run here, and sent with one request.
 */

import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import { unlessMissing, whenNowhere } from "../lib/missing-files.ts"
import { parseJson } from "../lib/parse-json.ts"
import { hubServer, isDockerHub, registryHost } from "../lib/registry-hosts.ts"
import type { Output } from "./output.ts"

export type Credential = { username: string; password: string }
type Environment = Readonly<Record<string, string | undefined>>
type Tell = (line: string) => Promise<void>

const helperMs = 30_000

type File = {
  auths?: Record<string, { auth?: string }>
  credHelpers?: Record<string, string>
  credsStore?: string
}

/** The registry of a reference; undefined: its own host's default one. */
export function registryOf(reference: string): string | undefined {
  const [first = "", ...rest] = reference.split("/")
  return rest.length > 0 && (/[.:]/.test(first) || first === "localhost") ? first.toLowerCase() : undefined
}

type Context = { client: Client; out: Pick<Output, "talk"> }

/** The credential for a pull; a short reference has the daemon's default registry. */
export async function credentialFor(
  { client, out }: Context,
  reference: string,
): Promise<Credential | undefined> {
  const tell = (line: string) => out.talk(line)
  const repository = reference
    .toLowerCase()
    .replace(/@.*$/, "")
    .replace(/:[^/:]*$/, "")
  if (registryOf(reference) !== undefined) return await findCredential(repository, tell)
  const host = (await client.version()).default_registry
  // A daemon of an earlier version names none.
  return host === null || host === undefined
    ? undefined
    : await findCredential(`${host.toLowerCase()}/${repository}`, tell)
}

/** USER:TOKEN from standard input. */
export async function readCredential(): Promise<string> {
  const { readInputText } = await import("./standard-input.ts")
  const text = (await readInputText()).replace(/\r?\n$/, "")
  if (/^[^:]+:./.test(text)) return text
  throw new AppError("invalid", "standard input is not USER:TOKEN")
}

/**
 * `place` is a registry, with or without a repository in it. The first file that knows it decides. A helper that is not
 * installed is told of and passed over: a public image needs none.
 */
export async function findCredential(
  place: string,
  tell: Tell,
  environment: Environment = process.env,
): Promise<Credential | undefined> {
  const [host = "", ...rest] = place.split("/")
  const asked = [registryHost(host), ...rest].join("/")
  for (const path of filesOf(environment)) {
    const file = await readFile(path)
    const found = file && (await credentialIn(file, asked, { environment, tell }))
    if (found) return found
  }
  return undefined
}

function filesOf(environment: Environment): string[] {
  const { HOME = "", DOCKER_CONFIG, REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR, XDG_CONFIG_HOME } = environment
  const home = (...parts: string[]) => (HOME === "" ? [] : [join(HOME, ...parts)])
  return [
    ...(REGISTRY_AUTH_FILE ? [REGISTRY_AUTH_FILE] : []),
    ...(XDG_RUNTIME_DIR ? [join(XDG_RUNTIME_DIR, "containers", "auth.json")] : []),
    ...(XDG_CONFIG_HOME
      ? [join(XDG_CONFIG_HOME, "containers", "auth.json")]
      : home(".config/containers/auth.json")),
    ...(DOCKER_CONFIG ? [join(DOCKER_CONFIG, "config.json")] : home(".docker/config.json")),
  ]
}

async function readFile(path: string): Promise<File | undefined> {
  const { readFileSync } = await import("node:fs")
  const text = unlessMissing(() => readFileSync(path, "utf8"), whenNowhere)
  if (text === undefined) return undefined
  const parsed = parseJson(text)
  if (typeof parsed === "object" && parsed !== null) return parsed as File
  throw new AppError("invalid", `${path} is not JSON`, {
    hint: "correct it, or give the credentials yourself",
  })
}

type Around = { environment: Environment; tell: Tell }

async function credentialIn(file: File, place: string, around: Around): Promise<Credential | undefined> {
  const host = hostOf(place)
  const helper = helperFor(file, host)
  if (helper !== undefined) return await askHelper(helper, host, around)
  // The longest key is the most exact one: Podman has logins for parts of a registry.
  const keys = Object.keys(file.auths ?? {}).sort((one, other) => placeOf(other).length - placeOf(one).length)
  for (const key of keys) {
    const auth = file.auths?.[key]?.auth
    if (!`${place}/`.startsWith(`${placeOf(key)}/`) || typeof auth !== "string" || auth === "") continue
    const text = Buffer.from(auth, "base64").toString("utf8")
    const colon = text.indexOf(":")
    if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) }
  }
  return file.credsStore ? await askHelper(file.credsStore, host, around) : undefined
}

function hostOf(place: string): string {
  return place.split("/")[0] ?? ""
}

function helperFor({ credHelpers = {} }: File, host: string): string | undefined {
  const named = Object.entries(credHelpers).find(([key]) => placeOf(key) === host)
  return credHelpers[host] ?? named?.[1]
}

/** Keys are HOST or HOST/REPOSITORY, or as older programs write them `https://HOST/v1/`. */
function placeOf(key: string): string {
  const [, scheme, place = ""] = /^(https?:\/\/)?(.*?)\/*$/.exec(key.toLowerCase()) ?? []
  const [host = "", ...rest] = place.split("/")
  const isHost = scheme !== undefined || /\/v[12]$/.test(place)
  return [registryHost(host), ...(isHost ? [] : rest)].join("/")
}

/** Returns undefined if the helper has none, or is not installed. */
async function askHelper(
  name: string,
  host: string,
  { environment, tell }: Around,
): Promise<Credential | undefined> {
  if (!/^[\w.-]+$/.test(name)) throw new AppError("invalid", `"${name}" is no name of a credential helper`)
  const program = `docker-credential-${name}`
  const path = Bun.which(program, { PATH: environment["PATH"] ?? "" })
  if (path === null) {
    await tell(`no credential for ${host} from ${program}: it is not installed (see: bhatti registry login)`)
    return undefined
  }
  const child = Bun.spawn([path, "get"], {
    env: { ...environment },
    stdin: Buffer.from(isDockerHub(host) ? hubServer : host),
    stdout: "pipe",
    stderr: "ignore",
    timeout: helperMs,
  })
  const [text] = await Promise.all([child.stdout.text(), child.exited])
  if (child.exitCode !== 0) return undefined
  const { Username: username, Secret: password } = (parseJson(text) ?? {}) as Record<string, unknown>
  if (typeof username !== "string" || typeof password !== "string" || username === "" || password === "")
    return undefined
  return { username, password }
}
