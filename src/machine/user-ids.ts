/** The user ids of machines: as many as slots, starting at `uid_base`. No other user of the host should have them. */

import { randomInt } from "node:crypto"
import { AppError } from "@bhatti/contract/errors"
import { readIfReadable } from "../lib/missing-files.ts"
import { hasProcesses } from "../lib/posix.ts"

const count = 65_536
/** The last slots are zygotes': no host has so many sandboxes that one of them gets it. */
const zygoteSlots = 1024

/**
 * Returns the slot of a new zygote, at random: a zygote's user may end the machines that were forked from a former
 * zygote of that user.
 */
export function freeZygoteSlot(uidBase: number): number {
  const first = randomInt(zygoteSlots)
  for (let tried = 0; tried < zygoteSlots; tried++) {
    const slot = count - 1 - ((first + tried) % zygoteSlots)
    if (!hasProcesses(uidBase + slot)) return slot
  }
  throw new AppError("unavailable", "every user id of zygotes is in use")
}

/** Returns whether a slot is a zygote's. */
export function isZygoteSlot(slot: number): boolean {
  return slot >= count - zygoteSlots && slot < count
}

export type OtherUser = { name: string; file: string }

export function otherUsersOf(uidBase: number): OtherUser[] {
  const [passwd = "", subuid = ""] = ["/etc/passwd", "/etc/subuid"].map(readIfReadable)
  return othersIn({ passwd, subuid }, uidBase)
}

/** Users with such ids, and users who may assign them in user namespaces, as rootless containers do. */
export function othersIn(
  { passwd, subuid }: { passwd: string; subuid: string },
  uidBase: number,
): OtherUser[] {
  const usersIn = (
    file: string,
    text: string,
    rangeOf: (fields: string[]) => [first: number, count: number],
  ) =>
    text
      .split("\n")
      .map((line) => line.split(":"))
      .filter((fields) => {
        const [first, length] = rangeOf(fields)
        return length > 0 && first < uidBase + count && first + length > uidBase
      })
      .map(([name = ""]) => ({ name, file }))
  return [
    ...usersIn("/etc/passwd", passwd, ([, , uid]) => [Number(uid), 1]),
    ...usersIn("/etc/subuid", subuid, ([, first, length]) => [Number(first), Number(length)]),
  ]
}
