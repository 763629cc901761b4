/** A subnet that overlaps another network: whose that is, and what to set. */

import { expect, test } from "bun:test"
import { parseNetwork } from "../rules/address.ts"
import { overlapError, type Route } from "./anchor.ts"

const site = { table: "bhatti_abcde", tapPrefix: "bhabcde", anchor: "bhgwabcde" }
const subnet = parseNetwork("10.86.0.0/16") ?? { base: 0, prefix: 0 }
const error = (routes: Route[], aliases: Record<string, string> = {}) =>
  overlapError(routes, { site, subnet, dataDir: "/srv/two", aliasOf: (device) => aliases[device] })

test("another installation is named by its data directory, and the line to write is there", () => {
  const routes = [
    { dst: "default", dev: "eth0" },
    { dst: "10.86.0.0/16", dev: "bhgw12345" },
    { dst: "10.87.0.0/16", dev: "docker0" },
  ]
  expect(error(routes, { bhgw12345: "bhatti /var/lib/bhatti" })).toMatchObject({
    code: "conflict",
    message:
      "the subnet 10.86.0.0/16 overlaps 10.86.0.0/16, which another installation of bhatti has (bhgw12345, /var/lib/bhatti)",
    hint: "write this line into /srv/two/config.yaml: subnet: 10.88.0.0/16",
  })
  // A sandbox's own route, and an anchor that an older daemon has made.
  expect(error([{ dst: "10.86.64.1", dev: "bh123451a2b3c4d" }])).toMatchObject({
    message:
      "the subnet 10.86.0.0/16 overlaps 10.86.64.1, which another installation of bhatti has (bh123451a2b3c4d)",
  })
})

test("any other network is named by its device, and routes of its own are none", () => {
  expect(error([{ dst: "10.0.0.0/8", dev: "wg0" }])).toMatchObject({
    message: "the subnet 10.86.0.0/16 overlaps 10.0.0.0/8, which the host reaches through wg0",
    hint: "set subnet in /srv/two/config.yaml to a private network that nothing here uses",
  })
  expect(
    error([
      { dst: "10.86.0.0/16", dev: "bhgwabcde" },
      { dst: "10.86.64.1", dev: "bhabcde1a2b3c4d" },
    ]),
  ).toBeUndefined()
  expect(
    error([
      { dst: "default", dev: "eth0" },
      { dst: "192.168.1.0/24", dev: "eth0" },
    ]),
  ).toBeUndefined()
})
