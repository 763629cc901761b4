/** The link that carries the host's own addresses among its sandboxes: the gateway's and those of name servers. */

import { existsSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { gatewayOf, networkText, overlaps, parseNetwork, type Subnet } from "../rules/address.ts"
import { anchorBatch, writeSetting } from "./links.ts"
import { runFor } from "./network-programs.ts"
import type { Site } from "./ruleset.ts"

/** An earlier daemon's anchor stays, unless the subnet has changed. */
export async function makeAnchor({ anchor }: Site, subnet: Subnet): Promise<void> {
  const gateway = gatewayOf(subnet)
  const { prefix } = subnet
  if (existsSync(`/sys/class/net/${anchor}`)) {
    const command = ["ip", "-4", "-j", "address", "show", "dev", anchor]
    const shown = await runFor("look at the anchor", command)
    const [found] = JSON.parse(shown) as { addr_info: { local: string; prefixlen: number }[] }[]
    if (found?.addr_info.some(({ local, prefixlen }) => local === gateway && prefixlen === prefix)) return
    await runFor("remove the anchor", ["ip", "link", "delete", "dev", anchor])
  }
  const input = anchorBatch(anchor, gateway, prefix)
  await runFor("make the anchor", ["ip", "-batch", "-"], { input })
  writeSetting(`ipv6/conf/${anchor}/disable_ipv6`, "1")
}

/** A sandbox must not get an address that the host uses or can reach. */
export async function refuseOverlap({ anchor, tapPrefix }: Site, subnet: Subnet): Promise<void> {
  const command = ["ip", "-4", "-j", "route", "show", "table", "all"]
  const shown = await runFor("read the host's routes", command)
  for (const { dst, dev = "" } of JSON.parse(shown) as { dst: string; dev?: string }[]) {
    const network = parseNetwork(dst)
    const isOurs = dev === anchor || dev.startsWith(tapPrefix)
    if (!network || isOurs || network.prefix === 0 || !overlaps(network, subnet)) continue
    throw new AppError(
      "conflict",
      `the subnet ${networkText(subnet)} overlaps ${dst}, which the host reaches through ${dev || "a route"}`,
      {
        hint: "set subnet in config.yaml of the data directory to a private network that nothing here uses, such as 10.87.0.0/16",
      },
    )
  }
}
