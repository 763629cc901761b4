/** Decides by a request's head alone where it goes: the first row that fits. */

import { isLoopback } from "../lib/client-address.ts"
import { hostName } from "../lib/host-name.ts"
import { upgradeOf } from "./forwarded.ts"
import type { RequestHead } from "./head.ts"

export type Zone = {
  /** Aliases are the names one label below it. */
  domain: string
  /** Names of the API that may lie below the domain. */
  apiHosts: readonly string[]
  /** Other labels below the domain that lead to the API; it must check what it is asked there. */
  isApiLabel?: (label: string) => boolean
  /** A published port has the name PORT-ID too, for whoever knows the id of its sandbox. */
  hasPortNames?: boolean
}

export type Destination =
  | { kind: "alias"; alias: string }
  | { kind: "nowhere" }
  | { kind: "certificate_ask"; query: string }
  | { kind: "api_socket" }
  | { kind: "api" }

type Asked = {
  request: RequestHead
  /** The part of the host's name below the domain; undefined if it is a name of the API, or outside the domain. */
  label: string | undefined
  isLocal: boolean
}

const askPath = "/caddy/ask"

const routes: readonly ((asked: Asked) => Destination | undefined)[] = [
  ({ label }) => (label !== undefined && !isAlias(label) ? { kind: "nowhere" } : undefined),
  ({ label }) => (label !== undefined ? { kind: "alias", alias: label } : undefined),
  ({ request: { method, target }, isLocal }) =>
    isLocal && method === "GET" && target.split("?", 1)[0] === askPath
      ? { kind: "certificate_ask", query: target.slice(askPath.length) }
      : undefined,
  // An upgrade to any other protocol is ignored, as the standard allows.
  ({ request }) => (upgradeOf(request) === "websocket" ? { kind: "api_socket" } : undefined),
  () => ({ kind: "api" }),
]

export function destinationOf(
  request: RequestHead,
  { zone, peer }: { zone: Zone; peer: string },
): Destination {
  const asked = { request, label: labelOf(hostName(request.host), zone), isLocal: isLoopback(peer) }
  for (const route of routes) {
    const destination = route(asked)
    if (destination) return destination
  }
  return { kind: "nowhere" }
}

/** Returns the alias that a name may have, or whether it is the API's own; "no" for every other name. */
export function ownerOf(name: string, zone: Zone): { alias: string } | "api" | "no" {
  const label = labelOf(name, zone)
  if (label !== undefined && isAlias(label)) return { alias: label }
  return name === zone.domain || zone.apiHosts.includes(name) ? "api" : "no"
}

function labelOf(name: string, { domain, apiHosts, isApiLabel }: Zone): string | undefined {
  if (!name.endsWith(`.${domain}`) || apiHosts.includes(name)) return undefined
  const label = name.slice(0, -domain.length - 1)
  return isApiLabel?.(label) ? undefined : label
}

function isAlias(label: string): boolean {
  return label !== "" && !label.includes(".")
}
