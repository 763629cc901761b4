/**
 * `curl http://HOST:8080/install | sh`: the script that installs the command line, and the files it fetches. Without a key, since whoever
 * asks has none yet; so how often and how many at once has a bound, for each client and in all.
 */

import type { Hono } from "hono"
import type { RateLimits } from "../contract/config.ts"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import { RateLimiter } from "../rules/rate-limit.ts"
import { StreamedAnswer } from "./streamed-answer.ts"

/** The files that can be fetched, all from this daemon's host. */
export interface Downloads {
  /** The installing script, for who fetches all else from `address`, where the daemon is too. */
  script(address: string): string
  /** Lines as `sha256sum` writes them. */
  sums(): Promise<string>
  /** Returns undefined if there is no such file. */
  open(name: string): Promise<Download | undefined>
}

export type Download = {
  /** Undefined where it is not known before the end. */
  bytesCount: number | undefined
  /** The next bytes, or nothing at the end. */
  next(): Promise<Uint8Array | undefined>
  close(): void
}

type Environment = { Bindings: { streamed?: StreamedAnswer }; Variables: Record<string, unknown> }

export function serveDownloads<E extends Environment>(
  app: Hono<E>,
  downloads: Downloads,
  rate: RateLimits["install"],
): void {
  const limiter = new RateLimiter(
    { burst: rate.burst, perMinute: rate.per_minute },
    { bucketsMax: limits.rateLimitBucketsMax },
  )
  const count = (request: Request) => {
    const decision = limiter.take(clientOf(request), performance.now())
    if (decision.kind === "allowed") return
    throw new AppError("limit_exceeded", "too many downloads", {
      retryable: true,
      retryAfterSec: Math.ceil(decision.retryAfterMs / 1000),
    })
  }
  const places = new Places()

  app.get("/install", (c) => {
    count(c.req.raw)
    return c.body(downloads.script(addressOf(c.req.raw)), 200, {
      "content-type": "text/x-shellscript; charset=utf-8",
      // It holds the address that it was fetched from.
      "cache-control": "no-store",
    })
  })

  app.get("/install/SHA256SUMS", async (c) => {
    count(c.req.raw)
    return c.body(await downloads.sums(), 200, { "content-type": "text/plain", "cache-control": "no-store" })
  })

  app.get("/install/:name", async (c) => {
    count(c.req.raw)
    const name = c.req.param("name") ?? ""
    const leave = places.enter(clientOf(c.req.raw))
    try {
      const file = await downloads.open(name)
      if (file === undefined)
        throw new AppError("not_found", "there is no such file to install", {
          hint: "GET /install/SHA256SUMS lists what is",
        })
      const length = file.bytesCount === undefined ? {} : { "content-length": `${file.bytesCount}` }
      c.env.streamed = new StreamedAnswer({
        headers: { "content-type": "application/octet-stream", ...length },
        next: () => file.next(),
        onClosed() {
          leave()
          file.close()
        },
      })
      return new Response(null, { headers: c.env.streamed.headers })
    } catch (error) {
      leave()
      throw error
    }
  })
}

/** Downloads that are under way. */
class Places {
  readonly #byClient = new Map<string, number>()
  #total = 0

  /** Returns what ends it, which may be called twice. */
  enter(client: string): () => void {
    const own = this.#byClient.get(client) ?? 0
    if (own >= limits.downloadsPerClientMax || this.#total >= limits.downloadsMax)
      throw new AppError("unavailable", "too many downloads at once", { retryAfterSec: 10 })
    this.#byClient.set(client, own + 1)
    this.#total++
    let isIn = true
    return () => {
      if (!isIn) return
      isIn = false
      this.#total--
      const left = (this.#byClient.get(client) ?? 1) - 1
      if (left === 0) this.#byClient.delete(client)
      else this.#byClient.set(client, left)
    }
  }
}

/** The front says the address that the connection came from last; before it stands what a trusted proxy has seen. */
function clientOf(request: Request): string {
  const addresses = (request.headers.get("x-forwarded-for") ?? "").split(",").map((one) => one.trim())
  return addresses.at(-2) ?? addresses.at(-1) ?? ""
}

/** As the client has written it. It becomes a word of a shell script, so nothing but a host and a port passes. */
function addressOf(request: Request): string {
  const host = request.headers.get("host") ?? ""
  if (!/^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?$/.test(host))
    throw new AppError("invalid", "the Host header is no host and port")
  const scheme = request.headers.get("x-forwarded-proto") === "https" ? "https" : "http"
  return `${scheme}://${host}`
}
