/**
 * Tells which processes are our name servers. Their arguments only name a candidate: anybody can start a process
 * with any arguments. A name server must hold the socket that root has bound to its address at port 53; so does
 * each copy that dnsmasq forks for a connection.
 */

import { readFileSync } from "node:fs"
import { basename, dirname } from "node:path"
import {
  commandLineOf,
  descriptorNamesOf,
  identityOf,
  listPids,
  type ProcessIdentity,
} from "../lib/process-identity.ts"

export type NameServerProcess = {
  process: ProcessIdentity
  /** The directory with its configuration, below the directory of all name servers. */
  key: string
  address: string
}

const port = 53
const ofRoot = "0"
const wordStart = "--conf-file="

/** Finds the name servers of an installation, whose directories lie below `directory`. */
export function findNameServers(directory: string): NameServerProcess[] {
  const candidates = listPids().flatMap((pid) => {
    const word = commandLineOf(pid).find((one) => one.startsWith(`${wordStart}${directory}/`))
    return word === undefined ? [] : [{ pid, key: basename(dirname(word.slice(wordStart.length))) }]
  })
  if (candidates.length === 0) return []
  const sockets = boundByRoot()
  return candidates.flatMap(({ pid, key }) => {
    const address = addressHeldBy(pid, sockets)
    const process = identityOf(pid)
    return address === undefined || process === undefined ? [] : [{ process, key, address }]
  })
}

/** Maps the names of a process's sockets among its descriptors to addresses. */
function boundByRoot(): Map<string, string> {
  const found = new Map<string, string>()
  for (const line of readFileSync("/proc/net/udp", "utf8").split("\n")) {
    const [, local = "", , , , , , user, , inode] = line.trim().split(/\s+/)
    const [address = "", number = ""] = local.split(":")
    if (user !== ofRoot || Number.parseInt(number, 16) !== port) continue
    // The kernel prints an address as one number in the processor's byte order.
    const bytes = address.match(/../g)?.toReversed() ?? []
    found.set(`socket:[${inode}]`, bytes.map((byte) => Number.parseInt(byte, 16)).join("."))
  }
  return found
}

function addressHeldBy(pid: number, sockets: ReadonlyMap<string, string>): string | undefined {
  for (const name of descriptorNamesOf(pid)) {
    const address = sockets.get(name)
    if (address !== undefined) return address
  }
  return undefined
}
