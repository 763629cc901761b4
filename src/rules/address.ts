/**
 * Derives a sandbox's address from the subnet and its slot alone: slots are unique on the host, so addresses are too.
 *
 *   subnet   .0 │ .1 gateway │ .2 … name servers │ from a quarter of the subnet on: slot 1, slot 2, …
 */

export type Subnet = { base: number; prefix: number }

/** The smallest subnet has room for 190 sandboxes, the largest for more slots than exist. */
export const subnetPrefixMin = 12
export const subnetPrefixMax = 24

export function parseAddress(text: string): number | undefined {
  const parts = text.split(".")
  if (parts.length !== 4) return undefined
  let value = 0
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined
    value = value * 256 + Number(part)
  }
  return value
}

export function addressText(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".")
}

/** Parses a network in CIDR form, or an address as a network of one. Bits after the prefix are dropped. */
export function parseNetwork(text: string): Subnet | undefined {
  const [address = "", length = "32", more] = text.split("/")
  const value = parseAddress(address)
  if (value === undefined || more !== undefined || !/^[0-9]{1,2}$/.test(length)) return undefined
  const prefix = Number(length)
  return prefix > 32 ? undefined : { base: value - (value % 2 ** (32 - prefix)), prefix }
}

export function networkText({ base, prefix }: Subnet): string {
  return `${addressText(base)}/${prefix}`
}

export function overlaps(one: Subnet, other: Subnet): boolean {
  return one.base < other.base + sizeOf(other) && other.base < one.base + sizeOf(one)
}

/** Returns whether `inner` lies entirely in `outer`. */
export function covers(outer: Subnet, inner: Subnet): boolean {
  return outer.prefix <= inner.prefix && overlaps(outer, inner)
}

/** Returns a private network that overlaps none of these, or undefined if there is none. */
export function freeSubnet(taken: readonly Subnet[]): Subnet | undefined {
  // Programs that choose a network by themselves begin at the lower ones.
  for (let second = 87; second < 255; second++) {
    const candidate = { base: (10 * 256 + second) * 2 ** 16, prefix: 16 }
    if (!taken.some((one) => overlaps(one, candidate))) return candidate
  }
  return undefined
}

export function gatewayOf(subnet: Subnet): string {
  return addressText(subnet.base + 1)
}

/** Returns undefined if the subnet has no room for the slot. */
export function sandboxAddress(subnet: Subnet, slot: number): string | undefined {
  const offset = sizeOf(subnet) / 4 + slot
  // Some systems use the last address of a subnet for broadcast.
  return offset < sizeOf(subnet) - 1 ? addressText(subnet.base + offset) : undefined
}

/** Returns the address of a name server by number, from 0, or undefined if the subnet has no room for it. */
export function resolverAddress(subnet: Subnet, number: number): string | undefined {
  const offset = 2 + number
  return offset < sizeOf(subnet) / 4 ? addressText(subnet.base + offset) : undefined
}

/** A locally administered unicast address: 02, then five bytes of the sandbox's id. */
export function macOf(sandboxId: string): string {
  const digits = sandboxId.slice("sb_".length, "sb_".length + 10)
  return `02:${digits.match(/../g)?.join(":")}`
}

function sizeOf({ prefix }: Subnet): number {
  return 2 ** (32 - prefix)
}
