/** Checks of host resources that sandboxes share with others: user ids and name servers. */

import { readFile } from "node:fs/promises"
import { errorCodeOf } from "../../lib/error-code.ts"
import { readNameServers } from "../../lib/host-name-servers.ts"
import type { Check } from "./checks.ts"

/** As many user ids as slots, starting at the base. */
const idsOfMachines = 65_536

export type HostShares = {
  /** Users with user ids of machines, and the file that assigns them. */
  others: { name: string; file: string }[]
  /** Why sandboxes cannot resolve names of the internet; null if they can. */
  namesTrouble: string | null
}

export async function gatherShares(settings: {
  uidBase: number
  hasNameServers: boolean
}): Promise<HostShares> {
  const [passwd, subuid] = await Promise.all([readIfAny("/etc/passwd"), readIfAny("/etc/subuid")])
  return {
    others: othersIn({ passwd, subuid }, settings.uidBase),
    namesTrouble: settings.hasNameServers ? null : readNameServers().trouble,
  }
}

/** Users with such ids, and users who may assign them in user namespaces, as rootless containers do. */
export function othersIn(
  { passwd, subuid }: { passwd: string; subuid: string },
  uidBase: number,
): HostShares["others"] {
  const overlaps = (first: number, count: number) =>
    count > 0 && first < uidBase + idsOfMachines && first + count > uidBase
  const fieldsOf = (text: string) => text.split("\n").map((line) => line.split(":"))
  return [
    ...fieldsOf(passwd)
      .filter(([, , uid]) => overlaps(Number(uid), 1))
      .map(([name = ""]) => ({ name, file: "/etc/passwd" })),
    ...fieldsOf(subuid)
      .filter(([, first, count]) => overlaps(Number(first), Number(count)))
      .map(([name = ""]) => ({ name, file: "/etc/subuid" })),
  ]
}

export function checkShares({ others, namesTrouble }: HostShares): Check[] {
  const [other] = others
  return [
    other === undefined
      ? { area: "users", status: "ok", text: "the user ids of machines are nobody else's" }
      : {
          area: "users",
          status: "warn",
          text: `${other.name} has user ids of machines too (${other.file}), and with them power over machines`,
          fix: "another uid_base in config.yaml; stop all sandboxes before the daemon is restarted with it",
        },
    namesTrouble === null
      ? { area: "names", status: "ok", text: "there are name servers to ask for sandboxes" }
      : {
          area: "names",
          status: "warn",
          text: `sandboxes find no names of the internet: ${namesTrouble}`,
          fix: "correct that file, or set dns_upstreams in config.yaml",
        },
  ]
}

async function readIfAny(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8")
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return ""
  }
}
