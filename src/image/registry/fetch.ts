/** Fetches documents and layers from a registry with skopeo, confined, and lets it onto the network only meanwhile. */

import { join } from "node:path"
import { type Confined, findSkopeo, runConfined } from "./confined.ts"
import { type LayerState, watchFetch } from "./progress.ts"
import { digestOf } from "./resolve.ts"
import { makeStaging, makeWork, refuseLinks } from "./staging.ts"
import { errorOf, noAnswer } from "./words.ts"

/** A registry of the operator's: it may be internal, have certificates of its own, or no TLS. */
export type KnownRegistry = {
  host: string
  isInsecure: boolean
  caFile: string | undefined
  /** Gives tokens for it, if that is another server. */
  tokenHost?: string | undefined
}

export type Admission = {
  uid: number
  nameServers: string[]
  hosts: string[]
  lost: AbortSignal
} & AsyncDisposable

export type FetchSettings = {
  dataDir: string
  registries: readonly KnownRegistry[]
  /** Lets a program onto the network that may reach the internet, and that registry; waits for its owner's turn. */
  admit(own: KnownRegistry | undefined, owner: string, signal: AbortSignal): Promise<Admission>
  timeoutMs: number
  /** For one document: a registry that does not answer must not hold a pull for the time of a whole fetch. */
  answerTimeoutMs: number
  /** Without a byte for so long a fetch or a push ends. */
  stallMs: number
  /** Bytes that stay free on the file system. */
  freeBytes: number
}

export type Source = {
  /** Fetches wait for their turn among those of other owners. */
  owner: string
  host: string
  repository: string
  tag: string | null
  credential?: { username: string; password: string } | undefined
}

const documentBytesMax = 4 * 1024 * 1024
export const globalFlags = [
  ...["--policy", "/etc/containers/policy.json"],
  ...["--registries.d", "/etc/containers/registries.d", "--tmpdir", "/fetched"],
]

/** Returns a manifest or an index as the registry sends it; the tag's, if no digest is given. */
export async function fetchDocument(
  settings: FetchSettings,
  source: Source,
  digest: string | null,
  signal: AbortSignal,
): Promise<Buffer> {
  const own = ownOf(settings, source)
  await using staging = await makeStaging(settings.dataDir)
  await using admission = await settings.admit(own, source.owner, signal)
  const directory = await makeWork(staging.path, admission.uid)
  const flags = [
    ...(own?.isInsecure ? ["--tls-verify=false"] : []),
    ...(own?.caFile === undefined ? [] : ["--cert-dir", "/certs"]),
  ]
  const subject = textOf(source, digest)
  const ended = await runConfined(
    [
      findSkopeo(),
      ...globalFlags,
      "inspect",
      "--raw",
      "--authfile",
      "/auth.json",
      ...flags,
      `docker://${subject}`,
    ],
    confinedOf(source, {
      own,
      admission,
      directory,
      signal,
      fileBytesMax: documentBytesMax,
      deadlineMs: settings.answerTimeoutMs,
    }),
  )
  if (ended.isLate) throw noAnswer(source.host)
  if (ended.code !== 0 || ended.isTooMuch) throw errorOf(ended, subject, source.credential)
  return ended.stdout
}

/** Fetches the layers that are not in the work directory yet; returns the directory of all of them. */
export async function fetchLayers(
  settings: FetchSettings,
  source: Source,
  options: {
    staging: string
    manifest: Buffer
    layers: readonly { digest: string; size: number }[]
    prepare: (work: string) => Promise<void>
    onProgress: (layers: LayerState[]) => void
    signal: AbortSignal
  },
): Promise<string> {
  const own = ownOf(settings, source)
  await using admission = await settings.admit(own, source.owner, options.signal)
  const work = await makeWork(options.staging, admission.uid)
  await options.prepare(work)
  const excess = new AbortController()
  const total = options.layers.reduce((sum, { size }) => sum + size, 0)
  const flags = [
    ...(own?.isInsecure ? ["--src-tls-verify=false"] : []),
    ...(own?.caFile === undefined ? [] : ["--src-cert-dir", "/certs"]),
    ...["--dest-oci-accept-uncompressed-layers", "--dest-shared-blob-dir", "/fetched/blobs"],
  ]
  const subject = textOf(source, digestOf(options.manifest))
  const signal = AbortSignal.any([options.signal, excess.signal])
  await using _watch = watchFetch({
    work,
    layers: options.layers,
    ...{ freeBytes: settings.freeBytes, stallMs: settings.stallMs, host: source.host },
    onProgress: options.onProgress,
    onExcess: (error) => excess.abort(error),
  })
  const ended = await runConfined(
    [
      ...[findSkopeo(), ...globalFlags, "copy", "--quiet", "--src-authfile", "/auth.json", ...flags],
      ...[`docker://${subject}`, "oci:/fetched/layout:image"],
    ],
    confinedOf(source, {
      ...{ own, admission, directory: work, signal },
      fileBytesMax: total + documentBytesMax,
      deadlineMs: settings.timeoutMs,
    }),
  )
  if (ended.code !== 0) throw errorOf(ended, subject, source.credential)
  const blobs = join(work, "blobs", "sha256")
  await refuseLinks([work, join(work, "blobs"), blobs])
  return blobs
}

export function confinedOf(
  { host, credential }: Source,
  given: {
    own: KnownRegistry | undefined
    admission: Admission
    directory: string
    signal: AbortSignal
    fileBytesMax: number
    deadlineMs: number
  },
): Confined {
  const { own, admission, directory, signal, fileBytesMax, deadlineMs } = given
  return {
    directory,
    uid: admission.uid,
    credentials: authFile(host, credential),
    hosts: admission.hosts,
    nameServers: admission.nameServers,
    caFile: own?.caFile,
    fileBytesMax,
    deadlineMs,
    signal: AbortSignal.any([signal, admission.lost]),
  }
}

export function ownOf({ registries }: FetchSettings, { host }: Source): KnownRegistry | undefined {
  return registries.find((one) => one.host === host)
}

export function textOf({ host, repository, tag }: Source, digest: string | null): string {
  return digest === null ? `${host}/${repository}:${tag}` : `${host}/${repository}@${digest}`
}

/** Credentials are for that registry alone; skopeo sends them nowhere else. */
function authFile(host: string, credential: Source["credential"]): string {
  if (credential === undefined) return '{"auths":{}}'
  const { username, password } = credential
  const auth = Buffer.from(`${username}:${password}`).toString("base64")
  return JSON.stringify({ auths: { [host]: { auth } } })
}
