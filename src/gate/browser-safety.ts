/**
 * Keeps web pages from using the API through their visitor's browser: the Host header reveals a page that has pointed
 * its own name at this address (DNS rebinding), the Origin header a cross-site request or socket.
 */

import { AppError } from "@bhatti/contract/errors"
import { hostName, isAddress } from "../lib/host-name.ts"

const readingMethods = new Set(["GET", "HEAD", "OPTIONS"])

type Allowed = {
  /** Host names of the API besides addresses and localhost. */
  apiHosts: readonly string[]
  allowedOrigins?: readonly string[]
}

export function checkBrowserSafety(request: Request, { apiHosts, allowedOrigins = [] }: Allowed): void {
  const host = request.headers.get("host") ?? ""
  const name = hostName(host)
  if (!isAddress(name) && name !== "localhost" && !apiHosts.includes(name)) {
    throw new AppError("forbidden", `the API does not answer as "${name}"`, {
      hint: "add the name to api_hosts in the daemon's config.yaml",
    })
  }
  const origin = request.headers.get("origin")
  const changes = !readingMethods.has(request.method) || request.headers.has("upgrade")
  if (origin !== null && changes && !isSameOrigin(origin, host) && !allowedOrigins.includes(origin)) {
    throw new AppError("forbidden", "requests from other sites are refused", {
      hint: "the operator can add the page's origin to allowed_origins in the daemon's config.yaml",
    })
  }
}

/** The scheme may differ: TLS can end at a proxy in front. */
function isSameOrigin(origin: string, host: string): boolean {
  if (!URL.canParse(origin)) return false
  const { protocol, host: originHost } = new URL(origin)
  // Parsing both makes an explicit default port equal to an implied one.
  return (
    URL.canParse(`${protocol}//${host}`) &&
    originHost !== "" &&
    new URL(`${protocol}//${host}`).host === originHost
  )
}
