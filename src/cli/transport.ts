/**
 * Connects the command line to a daemon: Bun's options for proxies, certificates and timeouts, which the SDK leaves to
 * its callers, and hints that name the command line's own commands.
 */

import { type Client, connect } from "@bhatti/sdk/client"
import { hints, type UnreachedReason } from "@bhatti/sdk/failure"
import type { OnNotice } from "@bhatti/sdk/notice"
import type { Reconnection } from "@bhatti/sdk/reconnection"

export type Destination = {
  /** The daemon's address. */
  url: string
  token?: string | undefined
  /** Trusted certificates as PEM, instead of the machine's. */
  ca?: string | undefined
}

export function connectTo(
  { url, token, ca }: Destination,
  reconnection: Reconnection = {},
  onNotice?: OnNotice,
): Client {
  const tls = ca === undefined ? undefined : { ca }
  const proxy = socketProxy(url, process.env)
  const options: BunFetchRequestInit = {
    ...(isLoopback(url) && { proxy: false as const }),
    ...(tls && { tls }),
    // Bun times out after five minutes by default; a buffered exec may take a day.
    timeout: false,
  }
  return connect({
    url,
    token,
    fetch: (address, init) => fetch(address, { ...init, ...options }),
    openSocket: (address, headers) =>
      new WebSocket(withoutLookup(address), {
        headers,
        perMessageDeflate: false,
        ...(tls && { tls }),
        ...(proxy !== undefined && { proxy }),
      }),
    reconnection,
    ...(onNotice && { onNotice }),
    hintFor: (reason) => hintFor(reason, url, { isProxied: proxy !== undefined }),
  })
}

function hintFor(
  reason: UnreachedReason,
  url: string,
  { isProxied }: { isProxied: boolean },
): string | undefined {
  switch (reason) {
    case "no_answer":
      return isLoopback(url)
        ? "sudo systemctl start bhatti   (or: sudo bhatti serve; for another address: bhatti setup)"
        : hintFor("unreachable", url, { isProxied })
    case "unreachable":
      return "check the address and the network; bhatti setup changes the address"
    case "no_tls":
      return `a daemon without a certificate is at ${url.replace(/^https/, "http")}; bhatti setup changes the address`
    case "unknown_authority":
      return "with an authority of your own: bhatti setup --ca FILE   (or BHATTI_CA)"
    case "no_stream":
      return isProxied
        ? "a proxy is in between and may block streams; set NO_PROXY=HOST to bypass it"
        : undefined
    case "wrong_certificate":
      return hints.wrong_certificate
  }
}

/** Resolving `localhost` costs a WebSocket 2 ms, half of a command's whole start. */
function withoutLookup(url: string): string {
  return url.replace(/^ws:\/\/localhost(?=[:/]|$)/, "ws://127.0.0.1")
}

/**
 * A daemon on this host gets no proxy: the proxy would receive the API key, and would look for the daemon on its own
 * host.
 */
export function isLoopback(url: string): boolean {
  const hostname = URL.parse(url)?.hostname ?? ""
  return /^(.+\.)?localhost\.?$/.test(hostname) || /^127(\.\d+){3}$/.test(hostname) || hostname === "[::1]"
}

/**
 * For WebSockets, for which the runtime does not choose a proxy as `fetch` does. Uses the same variables in the same
 * order as `fetch`; the runtime itself respects NO_PROXY. Neither supports other kinds of proxies, such as SOCKS.
 */
export function socketProxy(
  url: string,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  if (isLoopback(url)) return undefined
  const scheme = url.startsWith("https:") ? "https" : "http"
  const names = [`${scheme}_proxy`, `${scheme}_proxy`.toUpperCase(), "all_proxy", "ALL_PROXY"]
  const named = names.map((name) => env[name]).find((value) => value !== undefined && value !== "")
  if (named === undefined) return undefined
  const proxy = named.includes("://") ? named : `http://${named}`
  return /^https?:/.test(proxy) && URL.canParse(proxy) ? proxy : undefined
}
