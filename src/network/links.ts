/** The host's end of a sandbox's wire, as lines for `ip -batch` and as kernel settings, and how such a setting is made. */

import { readFileSync, writeFileSync } from "node:fs"
import { AppError } from "../contract/errors.ts"
import { errorCodeOf } from "../lib/error-code.ts"

/** Of every TAP device: what a guest knows as its gateway's card, the same on every host. */
export const gatewayMac = "02:00:00:00:00:fe"

export type Link = { tap: string; mac: string; address: string }

/** The guest's card is known for good, so the host never asks for it, and a packet to the guest can take only this way. */
export function linkUpBatch({ tap, mac, address }: Link, gateway: string): string {
  return [
    `link set dev ${tap} address ${gatewayMac} up`,
    `neighbour replace ${address} lladdr ${mac} nud permanent dev ${tap}`,
    `route replace ${address}/32 dev ${tap} src ${gateway}`,
    "",
  ].join("\n")
}

/** Below /proc/sys/net. No IPv6 at all, and no packet whose answer would take another way. */
export function linkSettings(tap: string): [name: string, value: string][] {
  return [
    [`ipv6/conf/${tap}/disable_ipv6`, "1"],
    [`ipv4/conf/${tap}/rp_filter`, "1"],
    [`ipv4/conf/${tap}/accept_redirects`, "0"],
    [`ipv4/conf/${tap}/send_redirects`, "0"],
  ]
}

/**
 * The anchor: an interface that holds the gateway's and the name servers' addresses. A bridge without ports, since every
 * kernel has that; what is sent to an address of the subnet that no sandbox has ends in it.
 */
export function anchorBatch(anchor: string, gateway: string, prefix: number): string {
  return [
    `link add name ${anchor} type bridge`,
    `address add ${gateway}/${prefix} dev ${anchor}`,
    `link set dev ${anchor} up`,
    "",
  ].join("\n")
}

/** Below /proc/sys/net. A kernel without IPv6 needs none of its settings. */
export function writeSetting(name: string, value: string): void {
  const path = `/proc/sys/net/${name}`
  try {
    if (readFileSync(path, "utf8").trim() !== value) writeFileSync(path, value)
  } catch (cause) {
    if (errorCodeOf(cause) === "ENOENT" && name.startsWith("ipv6/")) return
    throw new AppError("unavailable", `cannot set net.${name.replaceAll("/", ".")}`, {
      cause,
      hint: "the daemon needs the host's network settings to be writable",
    })
  }
}
