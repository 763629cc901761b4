/**
 * The headers that cross the proxy: all except those of a single connection and those that identify the client,
 * which the proxy sets itself. So an application can trust its information about the client.
 */

import type { Framing, Header, RequestHead, ResponseHead } from "./head.ts"
import { listOf, valuesOf } from "./head.ts"

/** Hop-by-hop headers. Each side gets its own framing headers. */
const hopByHop = new Set([
  "connection",
  "content-length",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
])

export type ClientFacts = {
  /** The address at the other end of the connection. */
  peer: string
  /** True if the peer is a proxy whose statement about its client is trusted. */
  isTrusted: boolean
  scheme: "http" | "https"
}

/** A request's headers as the upstream receives them; framing and upgrade belong to each connection. */
export function forwardedHeaders(request: RequestHead, client: ClientFacts): Header[] {
  const dropped = droppedNames(request.headers)
  // A `Connection` header must not remove the Host header.
  dropped.delete("host")
  const given = (name: string) => (client.isTrusted ? valuesOf(request.headers, name) : [])
  return [
    ...request.headers.filter(([name]) => {
      const lower = name.toLowerCase()
      return !(
        dropped.has(lower) ||
        saysWhoTheClientIs(lower) ||
        (lower === "expect" && request.version === "1.0")
      )
    }),
    ["X-Forwarded-For", [...given("x-forwarded-for"), client.peer].join(", ")],
    ["X-Forwarded-Proto", given("x-forwarded-proto")[0] ?? client.scheme],
    ["X-Forwarded-Host", given("x-forwarded-host")[0] ?? request.host],
  ]
}

export function requestBytes(request: RequestHead, client: ClientFacts): Buffer {
  const lines = [`${request.method} ${request.target} HTTP/1.1`]
  for (const [name, value] of forwardedHeaders(request, client)) lines.push(`${name}: ${value}`)
  if (upgradeOf(request) !== undefined)
    lines.push("Connection: Upgrade", `Upgrade: ${valuesOf(request.headers, "upgrade")[0]}`)
  return endHead(lines, request.framing)
}

/**
 * `framing` is how the body goes to this client, `keepAlive` whether the connection stays open after it. A response
 * without a body may still state its length.
 */
export function responseBytes(
  response: Pick<ResponseHead, "status" | "reason" | "headers">,
  options: { framing: Framing; connection: "keep-alive" | "close" | "upgrade" | undefined },
): Buffer {
  const dropped = droppedNames(response.headers)
  const lines = [`HTTP/1.1 ${response.status} ${response.reason}`]
  for (const [name, value] of response.headers) {
    if (!dropped.has(name.toLowerCase())) lines.push(`${name}: ${value}`)
  }
  switch (options.connection) {
    case "upgrade":
      lines.push("Connection: Upgrade", `Upgrade: ${valuesOf(response.headers, "upgrade")[0]}`)
      break
    case "keep-alive":
    case "close":
      lines.push(`Connection: ${options.connection}`)
      break
    case undefined:
      break
  }
  if (options.framing.kind === "none" && response.status >= 200 && response.status !== 204) {
    const [length] = valuesOf(response.headers, "content-length")
    if (length !== undefined) lines.push(`Content-Length: ${length}`)
  }
  return endHead(lines, options.framing)
}

/**
 * Returns the protocol that a client wants to upgrade to. Excludes HTTP/2 without encryption: after that upgrade a
 * client could forge the headers about itself. Ignores an upgrade request with a body, as the standard allows.
 */
export function upgradeOf(request: RequestHead): string | undefined {
  if (request.version === "1.0" || !isBodyless(request.framing)) return undefined
  if (!listOf(request.headers, "connection").includes("upgrade")) return undefined
  const wanted = listOf(request.headers, "upgrade")
  const [protocol] = wanted
  return wanted.length !== 1 || protocol?.startsWith("h2") ? undefined : protocol
}

export function isBodyless(framing: Framing): boolean {
  return framing.kind === "none" || (framing.kind === "length" && framing.bytes === 0)
}

/** Returns true if the sender of this head wants to keep the connection open. */
export function wantsKeepAlive(head: { version: "1.0" | "1.1"; headers: readonly Header[] }): boolean {
  const options = listOf(head.headers, "connection")
  return head.version === "1.1" ? !options.includes("close") : options.includes("keep-alive")
}

function droppedNames(headers: readonly Header[]): Set<string> {
  const named = listOf(headers, "connection")
  return named.length === 0 ? new Set(hopByHop) : new Set([...hopByHop, ...named])
}

/** Underscores count as hyphens: for a CGI or WSGI application both are the same name. */
function saysWhoTheClientIs(lowerName: string): boolean {
  const name = lowerName.replaceAll("_", "-")
  return name.startsWith("x-forwarded-") || name === "forwarded" || name === "x-real-ip"
}

function endHead(lines: string[], framing: Framing): Buffer {
  if (framing.kind === "length") lines.push(`Content-Length: ${framing.bytes}`)
  if (framing.kind === "chunked") lines.push("Transfer-Encoding: chunked")
  lines.push("", "")
  return Buffer.from(lines.join("\r\n"), "latin1")
}
