/** The user ids of machines: as many as slots, starting at `uid_base`. No other user of the host should have them. */

import { readIfReadable } from "../lib/missing-files.ts"

const count = 65_536

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
