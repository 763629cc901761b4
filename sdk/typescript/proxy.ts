/**
 * Chooses the environment's proxy for a daemon. A daemon on this host gets none: the proxy would receive the API key,
 * and would look for the daemon on its own host.
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
