/**
 * Settings that the operator gives every sandbox of this host: an outbound proxy, and trust in the host's own
 * certificate authority. The authority is part of templates, so that it costs creates nothing; a sandbox's own
 * variables take precedence.
 */

import { AppError, isGuestReason } from "@bhatti/contract/errors"
import type { Guest } from "./host.ts"
import { runInGuest } from "./run-in-guest.ts"

export type GuestDefaults = {
  /** Certificates in PEM form, and their digest. */
  authority?: { pem: string; digest: string }
  proxy?: { url: string; exceptions: readonly string[] }
}

const authorityPath = "/usr/local/share/ca-certificates/bhatti-host.crt"
const bundlePath = "/etc/ssl/certs/ca-certificates.crt"
/** Lists of Fedora, Alpine and SUSE. */
const otherBundles = [
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/cert.pem",
  "/etc/ssl/ca-bundle.pem",
]
const listBytesMax = 4 * 1024 * 1024
const fileDeadlineMs = 15_000
/** Hashing all certificates takes an emulated guest some seconds. */
const installDeadlineSec = 60

/** Connections to the sandbox itself and its siblings bypass the proxy. */
const neverProxied = ["localhost", "127.0.0.1", "::1", ".bhatti"]

export function defaultEnvironment({ authority, proxy }: GuestDefaults): Record<string, string> {
  // Node.js and Python's requests ship their own lists of authorities.
  const trust = authority ? { NODE_EXTRA_CA_CERTS: bundlePath, REQUESTS_CA_BUNDLE: bundlePath } : {}
  if (!proxy) return trust
  const exceptions = [...neverProxied, ...proxy.exceptions].join(",")
  const way = { http_proxy: proxy.url, https_proxy: proxy.url, no_proxy: exceptions }
  const upper = Object.fromEntries(Object.entries(way).map(([name, value]) => [name.toUpperCase(), value]))
  return { ...trust, ...way, ...upper }
}

/**
 * Makes a template's guest trust the host's authority: by the image's own program for that, else by its lists of
 * authorities, of which it may have none.
 */
export async function installAuthority(guest: Guest, { authority }: GuestDefaults): Promise<void> {
  if (!authority) return
  await write(guest, authorityPath, [authority.pem])
  const command = { argv: ["update-ca-certificates"], user: "root", timeoutMs: installDeadlineSec * 1000 }
  try {
    const { exitCode } = await runInGuest(guest, command)
    if (exitCode !== 0)
      throw new AppError("unavailable", `update-ca-certificates failed with exit code ${exitCode}`)
  } catch (error) {
    const isNotStarted =
      error instanceof AppError && (error.code === "not_found" || isGuestReason(error.reason))
    if (!isNotStarted) throw error
    await addToLists(guest, authority.pem)
  }
}

/** Programs look for one of these; variables name the first, so it is made where it is missing. */
async function addToLists(guest: Guest, pem: string): Promise<void> {
  let known: Buffer | undefined
  let isThere = false
  for (const path of [bundlePath, ...otherBundles]) {
    const list = await readList(guest, path)
    if (!list) continue
    known ??= list
    isThere ||= path === bundlePath
    await write(guest, path, [list, "\n", pem])
  }
  if (!isThere) await write(guest, bundlePath, known ? [known, "\n", pem] : [pem])
}

/** Returns undefined if there is no such file. A link leads to another of them. */
async function readList(guest: Guest, path: string): Promise<Buffer | undefined> {
  try {
    const { type, size } = await guest.ask({ op: "statFile", path }, { deadlineMs: fileDeadlineMs })
    if (type !== "file" || size > listBytesMax) return undefined
  } catch (error) {
    if (error instanceof AppError && error.code !== "unavailable") return undefined
    throw error
  }
  const download = guest.open({ op: "readFile", path, limit: listBytesMax })
  const chunks: Uint8Array[] = []
  for await (const chunk of download.output) chunks.push(Buffer.from(chunk))
  await download.result
  return Buffer.concat(chunks)
}

async function write(guest: Guest, path: string, parts: (Buffer | string)[]): Promise<void> {
  const owner = { uid: 0, gid: 0 }
  const transfer = guest.open({ op: "writeFile", path, mode: "0644", parents: true, owner })
  for (const part of parts) await transfer.write(Buffer.from(part))
  transfer.endInput()
  await transfer.result
}
