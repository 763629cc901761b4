/**
 * The host's end of a sandbox's link, as lines for `ip -batch` and as kernel settings, and the code that applies
 * such a setting.
 */

import { readFileSync, writeFileSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { switchOn } from "../lib/route-netlink.ts"

/** MAC address of every TAP device: the guest's gateway, the same on every host. */
export const gatewayMac = "02:00:00:00:00:fe"

export type Link = { tap: string; mac: string; address: string }

/**
 * The guest's MAC address is set statically, so the host never asks for it, and a packet to the guest can take only
 * this route.
 */
export function linkUpBatch({ tap, mac, address }: Link, gateway: string): string {
  return [
    `link set dev ${tap} address ${gatewayMac} up`,
    `neighbour replace ${address} lladdr ${mac} nud permanent dev ${tap}`,
    `route replace ${address}/32 dev ${tap} src ${gateway}`,
    "",
  ].join("\n")
}

/** Does what `linkUpBatch` says, without a process. */
export function switchLinkOn({ tap, mac, address }: Link, gateway: string): void {
  switchOn({ device: tap, mac: gatewayMac, guest: { mac, address }, source: gateway })
}

/** Names below /proc/sys/net. Disables IPv6, and drops packets whose answer would take another route. */
export function linkSettings(tap: string): [name: string, value: string][] {
  return [
    [`ipv6/conf/${tap}/disable_ipv6`, "1"],
    [`ipv4/conf/${tap}/rp_filter`, "1"],
    [`ipv4/conf/${tap}/accept_redirects`, "0"],
    [`ipv4/conf/${tap}/send_redirects`, "0"],
  ]
}

/**
 * The anchor: an interface that holds the addresses of the gateway and the name servers. A bridge without ports
 * serves, since every kernel has bridges. Packets to unused addresses of the subnet end in it.
 */
export function anchorBatch(anchor: string, gateway: string, prefix: number): string {
  return [
    `link add name ${anchor} type bridge`,
    `address add ${gateway}/${prefix} dev ${anchor}`,
    `link set dev ${anchor} up`,
    "",
  ].join("\n")
}

/** Names below /proc/sys/net. A kernel without IPv6 needs none of its settings. */
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
