/** Addresses: no two sandboxes share one, and text and number are the same thing. */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import {
  addressText,
  gatewayOf,
  macOf,
  networkText,
  overlaps,
  parseAddress,
  parseNetwork,
  resolverAddress,
  type Subnet,
  sandboxAddress,
  subnetPrefixMax,
  subnetPrefixMin,
} from "./address.ts"

const word = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const network = fc
  .tuple(word, fc.integer({ min: 1, max: 32 }))
  .map(([value, prefix]): Subnet => ({ base: value - (value % 2 ** (32 - prefix)), prefix }))
const subnet = fc
  .tuple(word, fc.integer({ min: subnetPrefixMin, max: subnetPrefixMax }))
  .map(([value, prefix]): Subnet => ({ base: value - (value % 2 ** (32 - prefix)), prefix }))
const slot = fc.integer({ min: 1, max: 65_535 })

test("text and number are one", () => {
  fc.assert(fc.property(word, (value) => parseAddress(addressText(value)) === value))
  fc.assert(fc.property(network, (one) => expect(parseNetwork(networkText(one))).toEqual(one) === undefined))
  expect(parseNetwork("10.1.2.3/8")).toEqual({ base: parseAddress("10.0.0.0") ?? -1, prefix: 8 })
  expect(parseNetwork("10.1.2.3")).toEqual({ base: parseAddress("10.1.2.3") ?? -1, prefix: 32 })
  for (const text of ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.x", "default"])
    expect([parseAddress(text), parseNetwork(text)]).toEqual([undefined, undefined])
  for (const text of ["1.2.3.4/33", "1.2.3.4/", "1.2.3.4/8/8", "::1/8"])
    expect(parseNetwork(text)).toBeUndefined()
})

describe("in a subnet", () => {
  test("two slots never share an address, nor with the gateway or a name server", () => {
    fc.assert(
      fc.property(subnet, slot, slot, fc.integer({ min: 0, max: 20_000 }), (net, one, other, number) => {
        const address = sandboxAddress(net, one)
        if (address === undefined) return true
        const others = [gatewayOf(net), resolverAddress(net, number)]
        if (one !== other) others.push(sandboxAddress(net, other))
        return !others.includes(address) && gatewayOf(net) !== resolverAddress(net, number)
      }),
    )
  })

  test("all addresses are the subnet's own", () => {
    fc.assert(
      fc.property(subnet, slot, fc.integer({ min: 0, max: 20_000 }), (net, one, number) => {
        const addresses = [sandboxAddress(net, one), resolverAddress(net, number), gatewayOf(net)]
        return addresses.every((text) => {
          const found = text === undefined ? undefined : parseNetwork(text)
          return found === undefined || overlaps(found, net)
        })
      }),
    )
  })

  test("the smallest has room for 190 sandboxes, the default for 49 150", () => {
    const small = parseNetwork("10.1.1.0/24") as Subnet
    expect([sandboxAddress(small, 1), sandboxAddress(small, 190)]).toEqual(["10.1.1.65", "10.1.1.254"])
    expect(sandboxAddress(small, 191)).toBeUndefined()
    const large = parseNetwork("10.209.0.0/16") as Subnet
    expect(sandboxAddress(large, 49_150)).toBe("10.209.255.254")
    expect(sandboxAddress(large, 49_151)).toBeUndefined()
  })
})

test("networks overlap exactly when one holds the other's first address", () => {
  fc.assert(
    fc.property(network, network, (one, other) => {
      const holds = (outer: Subnet, inner: Subnet) =>
        inner.base >= outer.base && inner.base < outer.base + 2 ** (32 - outer.prefix)
      return overlaps(one, other) === (holds(one, other) || holds(other, one))
    }),
  )
})

test("a card's address is of one card, and of nobody's making", () => {
  expect(macOf("sb_0123456789abcdef")).toBe("02:01:23:45:67:89")
})
