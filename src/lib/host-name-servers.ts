/**
 * The name servers that this host itself asks, as its resolv.conf names them. Nothing is assumed where that file is damaged:
 * without a name server in it there is none, and the trouble is told.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { isIP } from "node:net"
import { errorCodeOf } from "./error-code.ts"

const hostFile = "/etc/resolv.conf"
/** As many as the C library asks, see resolv.conf(5). */
const serversMax = 3
const bytesMax = 64 * 1024

export type HostNameServers = {
  servers: string[]
  /** Why there are none, or fewer than the file has lines for. */
  trouble: string | null
}

/** Which addresses may be asked. */
type Accepts = (address: string) => boolean

/** Other keywords (search domains, options) are the host's own business. */
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

/** An address, perhaps of one link only. */
function isNameServer(value: string): boolean {
  const [address = "", link, ...rest] = value.split("%")
  const family = isIP(address)
  if (family === 6) return rest.length === 0 && (link === undefined || /^[A-Za-z0-9_.-]{1,15}$/.test(link))
  return family === 4 && link === undefined
}

/** A path that is no file, such as a pipe without a writer, must not hold up the daemon. */
function readBounded(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!fstatSync(fd).isFile()) throw Object.assign(new Error(`${path} is no file`), { code: "no file" })
    const bytes = Buffer.alloc(bytesMax)
    return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytesMax, 0))
  } finally {
    closeSync(fd)
  }
}
