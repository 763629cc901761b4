/**
 * Settings that the operator gives every sandbox of this host: an outbound proxy, and trust in the host's own
 * certificate authority. The authority is part of templates, so that it costs creates nothing; a sandbox's own
 * variables take precedence.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Guest } from "./host.ts"
import { runInGuest } from "./run-in-guest.ts"

export type GuestDefaults = {
  /** Certificates in PEM form, and their digest. */
  authority?: { pem: string; digest: string }
  proxy?: { url: string; exceptions: readonly string[] }
}

const authorityPath = "/usr/local/share/ca-certificates/bhatti-host.crt"
const bundlePath = "/etc/ssl/certs/ca-certificates.crt"
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

/** Makes a template's guest trust the host's authority. An image without the program for it is left unchanged. */
export async function installAuthority(guest: Guest, { authority }: GuestDefaults): Promise<void> {
  if (!authority) return
  const transfer = guest.open({
    op: "writeFile",
    path: authorityPath,
    mode: "0644",
    parents: true,
    owner: { uid: 0, gid: 0 },
  })
  await transfer.write(Buffer.from(authority.pem))
  transfer.endInput()
  await transfer.result
  const command = { argv: ["update-ca-certificates"], user: "root", timeoutMs: installDeadlineSec * 1000 }
  try {
    const { exitCode } = await runInGuest(guest, command)
    if (exitCode !== 0)
      throw new AppError("unavailable", `update-ca-certificates failed with exit code ${exitCode}`)
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
  }
}
