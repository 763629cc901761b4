/**
 * Parses heads of HTTP/1 messages strictly: input that two parsers could read differently is refused, never
 * repaired. This prevents request smuggling through this proxy, and response splitting by a hostile guest.
 *
 * Owns the grammar and the framing that follows from a head. Does not read bodies or interpret other headers.
 */

export const headLimits = {
  /** Start line and headers together, with the empty line. */
  bytesMax: 32 * 1024,
  targetBytesMax: 16 * 1024,
  methodBytesMax: 32,
  headersMax: 128,
} as const

export type Header = [name: string, value: string]

/** How the end of the body after a head is determined. */
export type Framing =
  | { kind: "none" }
  | { kind: "length"; bytes: number }
  | { kind: "chunked" }
  | { kind: "until_close" }

type Version = "1.0" | "1.1"

export type RequestHead = {
  method: string
  /** In origin form, or `*`. */
  target: string
  version: Version
  headers: Header[]
  /** As the client sent it: case and port are the application's business. */
  host: string
  framing: Framing
}

export type ResponseHead = {
  status: number
  reason: string
  version: Version
  headers: Header[]
  framing: Framing
}

/** A refused head, and the status for the client. */
export class HeadError extends Error {
  override readonly name = "HeadError"
  readonly status: number

  constructor(message: string, status = 400) {
    super(message)
    this.status = status
  }
}

const CR = 0x0d
const LF = 0x0a
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** Everything but control characters; a tab may appear inside. Bytes above ASCII are opaque and pass unchanged. */
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/
const targetText = /^[\x21\x22\x24-\x7e]+$/
const hostText = /^(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z](?:[0-9A-Za-z._-]*))(?::\d{1,5})?$/
const absoluteForm = /^https?:\/\/([^/?]*)(.*)$/i
const responseBegin = "HTTP/1."
const lengthText = /^\d{1,15}$/

/** Tells whether a message can begin with these bytes. */
export function canBegin(kind: "request" | "response", bytes: Buffer): boolean {
  if (kind === "request") return token.test(String.fromCharCode(bytes[0] ?? 0))
  return responseBegin.startsWith(bytes.toString("latin1", 0, responseBegin.length))
}

/**
 * Returns the end of the head, or -1 if more bytes are needed. `from` is the length scanned before. A line that
 * does not end with CRLF is refused as soon as it is seen: waiting for more would leave its sender without an
 * answer.
 */
export function findHeadEnd(bytes: Buffer, from: number): number {
  for (let at = bytes.indexOf(LF, from); at !== -1; at = bytes.indexOf(LF, at + 1)) {
    if (bytes[at - 1] !== CR) throw new HeadError("a line ends without a carriage return")
    if (at >= 3 && bytes[at - 2] === LF && bytes[at - 3] === CR) {
      if (at >= headLimits.bytesMax) throw tooLarge()
      return at + 1
    }
  }
  if (bytes.length >= headLimits.bytesMax) throw tooLarge()
  return -1
}

/** `bytes` is exactly one head, its empty line included. */
export function parseRequestHead(bytes: Buffer): RequestHead {
  const { startLine, headers } = parseLines(bytes)
  const [method = "", rawTarget = "", protocol = "", ...rest] = startLine.split(" ")
  if (rest.length > 0 || !token.test(method) || method.length > headLimits.methodBytesMax)
    throw new HeadError("the request line is malformed")
  if (rawTarget.length > headLimits.targetBytesMax) throw new HeadError("the address is too long", 414)
  if (!targetText.test(rawTarget)) throw new HeadError("the request line is malformed")
  const version = versionOf(protocol)

  const hosts = valuesOf(headers, "host")
  const [host = ""] = hosts
  if (hosts.length !== 1 || !hostText.test(host)) throw new HeadError("a request names exactly one host")
  const framing = declaredFraming(headers, version) ?? { kind: "none" }
  return { method, target: originForm(method, rawTarget, host), version, headers, host, framing }
}

/** `method` is the request's: it decides whether a body follows. */
export function parseResponseHead(bytes: Buffer, method: string): ResponseHead {
  const { startLine, headers } = parseLines(bytes)
  const match = /^HTTP\/(1\.[01]) ([1-9]\d\d)(?: (.*))?$/.exec(startLine)
  if (!match || !fieldValue.test(match[3] ?? "")) throw new HeadError("the status line is malformed")
  const version = match[1] as Version
  const status = Number(match[2])
  const declared = declaredFraming(headers, version)
  const hasNoBody = method === "HEAD" || status < 200 || status === 204 || status === 304
  const framing: Framing = hasNoBody ? { kind: "none" } : (declared ?? { kind: "until_close" })
  return { status, reason: match[3] ?? "", version, headers, framing }
}

export function valuesOf(headers: readonly Header[], lowerName: string): string[] {
  const values: string[] = []
  for (const [name, value] of headers) {
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) values.push(value)
  }
  return values
}

/** The comma-separated members of a header, in lower case. */
export function listOf(headers: readonly Header[], lowerName: string): string[] {
  return valuesOf(headers, lowerName)
    .flatMap((value) => value.split(","))
    .map((member) => member.trim().toLowerCase())
    .filter((member) => member !== "")
}

function parseLines(bytes: Buffer): { startLine: string; headers: Header[] } {
  // Latin-1 preserves every byte, so the forwarded bytes equal the received ones.
  const [startLine = "", ...lines] = bytes.toString("latin1", 0, bytes.length - 4).split("\r\n")
  if (lines.length > headLimits.headersMax) throw tooLarge()
  const headers: Header[] = []
  for (const line of lines) {
    const colon = line.indexOf(":")
    const name = line.slice(0, Math.max(colon, 0))
    // This refuses folded lines and spaces before the colon, too.
    if (!token.test(name)) throw new HeadError("a header's name is malformed")
    const value = trimBlanks(line, colon + 1)
    if (!fieldValue.test(value)) throw new HeadError("a header's value is malformed")
    headers.push([name, value])
  }
  return { startLine, headers }
}

/** Removes only spaces and tabs; `trim` would remove more. */
function trimBlanks(line: string, from: number): string {
  let start = from
  let end = line.length
  while (start < end && (line[start] === " " || line[start] === "\t")) start++
  while (end > start && (line[end - 1] === " " || line[end - 1] === "\t")) end--
  return line.slice(start, end)
}

function versionOf(protocol: string): Version {
  if (protocol === "HTTP/1.1") return "1.1"
  if (protocol === "HTTP/1.0") return "1.0"
  if (/^HTTP\/\d\.\d$/.test(protocol)) throw new HeadError("only HTTP/1.0 and HTTP/1.1 are spoken here", 505)
  throw new HeadError("the request line is malformed")
}

/** Returns the framing that the headers declare, or undefined if they declare none. */
function declaredFraming(headers: readonly Header[], version: Version): Framing | undefined {
  const encodings = valuesOf(headers, "transfer-encoding")
  const lengths = valuesOf(headers, "content-length")
  if (encodings.length > 0) {
    if (lengths.length > 0) throw new HeadError("a body has a length or is chunked, not both")
    if (version === "1.0") throw new HeadError("HTTP/1.0 has no transfer encodings")
    if (encodings.length > 1 || encodings[0]?.toLowerCase() !== "chunked")
      throw new HeadError("the only transfer encoding is chunked")
    return { kind: "chunked" }
  }
  if (lengths.length === 0) return undefined
  const [length = ""] = lengths
  if (lengths.length > 1 || !lengthText.test(length)) throw new HeadError("the content length is malformed")
  return { kind: "length", bytes: Number(length) }
}

function originForm(method: string, target: string, host: string): string {
  if (target.startsWith("/")) return target
  if (target === "*" && method === "OPTIONS") return target
  const absolute = absoluteForm.exec(target)
  if (!absolute) throw new HeadError("the address must be a path")
  if (absolute[1]?.toLowerCase() !== host.toLowerCase())
    throw new HeadError("the address and the Host header name different hosts")
  const path = absolute[2] ?? ""
  return path.startsWith("/") ? path : `/${path}`
}

function tooLarge(): HeadError {
  return new HeadError("the headers are too large", 431)
}
