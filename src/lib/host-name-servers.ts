/**
 * The name servers of this host, from its resolv.conf. If that file is damaged or names none, there are none, and the
 * problem is reported; no default is assumed.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { isIP } from "node:net"
import { errorCodeOf } from "./error-code.ts"

const hostFile = "/etc/resolv.conf"
/** The C library's limit, see resolv.conf(5). */
const serversMax = 3
const bytesMax = 64 * 1024

export type HostNameServers = {
  servers: string[]
  /** Why there are none, or fewer than the file has lines for. */
  trouble: string | null
}

/** Decides which addresses may be asked. */
type Accepts = (address: string) => boolean

/** Ignores other keywords (search domains, options). */
export function parseNameServers(text: string, accepts: Accepts = () => true): HostNameServers {
  const named = text
    .split(/\r?\n/)
    .map((line) => /^[ \t]*nameserver[ \t]+([^\s#;]+)/.exec(line)?.[1])
    .filter((value) => value !== undefined)
  const servers = [...new Set(named)]
    .filter((value) => isNameServer(value) && accepts(value))
    .slice(0, serversMax)
  if (servers.length > 0) return { servers, trouble: null }
  const trouble = named.length === 0 ? "names no name server" : "names no name server that can be asked"
  return { servers, trouble }
}

export function readNameServers({
  path = hostFile,
  accepts,
}: {
  path?: string
  accepts?: Accepts
} = {}): HostNameServers {
  try {
    const { servers, trouble } = parseNameServers(readBounded(path), accepts)
    return { servers, trouble: trouble === null ? null : `${path} ${trouble}` }
  } catch (error) {
    const code = errorCodeOf(error)
    if (code === undefined) throw error
    return { servers: [], trouble: `${path} cannot be read (${code})` }
  }
}

/** Accepts an address, with or without a zone. */
function isNameServer(value: string): boolean {
  const [address = "", link, ...rest] = value.split("%")
  const family = isIP(address)
  if (family === 6) return rest.length === 0 && (link === undefined || /^[A-Za-z0-9_.-]{1,15}$/.test(link))
  return family === 4 && link === undefined
}

/** A path that is not a regular file, such as a pipe without a writer, must not block the daemon. */
function readBounded(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!fstatSync(fd).isFile()) throw Object.assign(new Error(`${path} is not a file`), { code: "no file" })
    const bytes = Buffer.alloc(bytesMax)
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytesMax, 0))
  } finally {
    closeSync(fd)
  }
}
