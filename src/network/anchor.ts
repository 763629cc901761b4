/** The link that carries the host's own addresses among its sandboxes: the gateway's and those of name servers. */

import { existsSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { readIfReadable } from "../lib/missing-files.ts"
import { freeSubnet, gatewayOf, networkText, overlaps, parseNetwork, type Subnet } from "../rules/address.ts"
import { anchorBatch, writeSetting } from "./links.ts"
import { runFor } from "./network-programs.ts"
import type { Site } from "./ruleset.ts"

/** Tells other installations whose link it is. The kernel takes 255 bytes. */
const aliasWord = "bhatti "
const aliasBytesMax = 255

/** An earlier daemon's anchor stays, unless the subnet has changed. */
export async function makeAnchor({ anchor }: Site, subnet: Subnet, dataDir: string): Promise<void> {
  const gateway = gatewayOf(subnet)
  const { prefix } = subnet
  if (!(await hasAddress(anchor, gateway, prefix))) {
    const input = anchorBatch(anchor, gateway, prefix)
    await runFor("make the anchor", ["ip", "-batch", "-"], { input })
    writeSetting(`ipv6/conf/${anchor}/disable_ipv6`, "1")
  }
  const alias = `${aliasWord}${dataDir}`
  if (Buffer.byteLength(alias) > aliasBytesMax || aliasOf(anchor) === alias) return
  await runFor("name the anchor", ["ip", "link", "set", "dev", anchor, "alias", alias])
}

/** An anchor with another address is removed. */
async function hasAddress(anchor: string, gateway: string, prefix: number): Promise<boolean> {
  if (!existsSync(`/sys/class/net/${anchor}`)) return false
  const command = ["ip", "-4", "-j", "address", "show", "dev", anchor]
  const shown = await runFor("look at the anchor", command)
  const [found] = JSON.parse(shown) as { addr_info: { local: string; prefixlen: number }[] }[]
  if (found?.addr_info.some(({ local, prefixlen }) => local === gateway && prefixlen === prefix)) return true
  await runFor("remove the anchor", ["ip", "link", "delete", "dev", anchor])
  return false
}

function aliasOf(device: string): string | undefined {
  return readIfReadable(`/sys/class/net/${device}/ifalias`)?.trimEnd()
}

/** A sandbox must not get an address that the host uses or can reach. */
export async function refuseOverlap(site: Site, subnet: Subnet, dataDir: string): Promise<void> {
  const command = ["ip", "-4", "-j", "route", "show", "table", "all"]
  const routes = JSON.parse(await runFor("read the host's routes", command)) as Route[]
  const error = overlapError(routes, { site, subnet, dataDir, aliasOf })
  if (error) throw error
}

export type Route = { dst: string; dev?: string }

/** Returns undefined if the subnet overlaps none of the routes, except for those of the installation itself. */
export function overlapError(
  routes: readonly Route[],
  options: {
    site: Site
    subnet: Subnet
    dataDir: string
    aliasOf: (device: string) => string | undefined
  },
): AppError | undefined {
  const { site, subnet, dataDir } = options
  const others = routes.flatMap(({ dst, dev = "" }) => {
    const network = parseNetwork(dst)
    const isOurs = dev === site.anchor || dev.startsWith(site.tapPrefix)
    return network && !isOurs && network.prefix > 0 ? [{ dst, dev, network }] : []
  })
  const found = others.find(({ network }) => overlaps(network, subnet))
  if (!found) return undefined
  const free = freeSubnet([...others.map(({ network }) => network), subnet])
  const file = join(dataDir, "config.yaml")
  return new AppError(
    "conflict",
    `the subnet ${networkText(subnet)} overlaps ${found.dst}, ${userOf(found.dev, options.aliasOf)}`,
    {
      hint: free
        ? `write this line into ${file}: subnet: ${networkText(free)}`
        : `set subnet in ${file} to a private network that nothing here uses`,
    },
  )
}

/** Another installation's anchor has its data directory in the alias, unless an older daemon made it. */
function userOf(device: string, alias: (device: string) => string | undefined): string {
  if (!/^bh(gw)?[0-9a-f]{5}/.test(device))
    return `which the host reaches through ${device || "a route without a device"}`
  const [, digest = ""] = /^bh(?:gw)?([0-9a-f]{5})/.exec(device) ?? []
  const text = alias(`bhgw${digest}`)
  const whose = text?.startsWith(aliasWord) ? `, ${text.slice(aliasWord.length)}` : ""
  return `which another installation of bhatti has (${device}${whose})`
}
