/**
 * Which proxy of the environment stands between us and a daemon. None before one on this host: the proxy would be given the
 * API key, and would look for the daemon on its own host.
 */

export function isLoopback(url: string): boolean {
  const hostname = URL.parse(url)?.hostname ?? ""
  return /^(.+\.)?localhost\.?$/.test(hostname) || /^127(\.\d+){3}$/.test(hostname) || hostname === "[::1]"
}

/**
 * For a WebSocket, which the runtime sends through no proxy by itself, unlike `fetch`. The variables and their order are those of
 * `fetch`; NO_PROXY it minds by itself. Proxies of another kind, such as SOCKS, neither of the two can use.
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
