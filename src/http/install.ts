/**
 * Serves `curl http://HOST:8080/install | sh`: the script that installs the command line, and the files it fetches. It
 * needs no key, since new users have none yet; so rate and concurrency are limited, per client and in total.
 */

import type { RateLimits } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Hono } from "hono"
import { limitKey, TrustedProxies } from "../lib/client-address.ts"
import { hostName } from "../lib/host-name.ts"
import { RateLimiter } from "../lib/rate-limit.ts"
import { downloadPace } from "../rules/read-pace.ts"
import { StreamedAnswer } from "./streamed-answer.ts"

/** The downloadable files, all from this daemon's host. */
export interface Downloads {
  /** The install script; it fetches everything from `address`, where the daemon is too. */
  script(address: string): string
  /** Lines in the format of `sha256sum`. */
  sums(): Promise<string>
  /** Returns undefined if there is no such file. */
  open(name: string): Promise<Download | undefined>
}

export type Download = {
  /** Undefined if the size is unknown before the end. */
  bytesCount: number | undefined
  /** Returns the next bytes, or undefined at the end. */
  next(): Promise<Uint8Array | undefined>
  close(): void
}

export type InstallSettings = Reached & { rate: RateLimits["install"]; trustedProxies: readonly string[] }

/** The addresses at which clients reach this daemon, directly or through a proxy. */
type Reached = {
  publicAddress: { scheme: "http" | "https"; port: number }
  /** Host names of the API besides addresses and localhost. */
  apiHosts: readonly string[]
}

const defaultPorts = { http: 80, https: 443 }

type Environment = { Bindings: { streamed?: StreamedAnswer }; Variables: Record<string, unknown> }

export function serveDownloads<E extends Environment>(
  app: Hono<E>,
  downloads: Downloads,
  { rate, trustedProxies, ...reached }: InstallSettings,
): void {
  const trusted = new TrustedProxies(trustedProxies)
  const clientOf = (request: Request) => clientBehind(request, trusted)
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
    return c.body(downloads.script(addressOf(c.req.raw, reached)), 200, {
      "content-type": "text/x-shellscript; charset=utf-8",
      // The script contains the address that it was fetched from.
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
          hint: "GET /install/SHA256SUMS lists the files",
        })
      const length = file.bytesCount === undefined ? {} : { "content-length": `${file.bytesCount}` }
      c.env.streamed = new StreamedAnswer({
        headers: { "content-type": "application/octet-stream", ...length },
        pace: downloadPace,
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

/** Downloads in progress. */
class Places {
  readonly #byClient = new Map<string, number>()
  #total = 0

  /** Returns a function that ends the download; calling it twice is safe. */
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

/**
 * The client's address, as other limits count it. The front appends the connection's address to the addresses that
 * proxies have reported.
 */
function clientBehind(request: Request, trusted: TrustedProxies): string {
  const addresses = (request.headers.get("x-forwarded-for") ?? "").split(",").map((one) => one.trim())
  const peer = addresses.pop() ?? ""
  return limitKey(trusted.clientBehind(peer, addresses))
}

/**
 * The address as the client has written it. Only a host and a port are accepted, since it becomes part of a shell
 * script.
 */
function addressOf(request: Request, { publicAddress, apiHosts }: Reached): string {
  const host = request.headers.get("host") ?? ""
  const parts = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?$/.exec(host)
  if (!parts) throw new AppError("invalid", "the Host header is not a host and port")
  const { scheme, port: publicPort } = publicAddress
  // A proxy that is not trusted ends TLS there, as the configuration says.
  const isPublic =
    apiHosts.includes(hostName(host)) && Number(parts[1] ?? defaultPorts[scheme]) === publicPort
  const isHttps = request.headers.get("x-forwarded-proto") === "https" || (isPublic && scheme === "https")
  return `${isHttps ? "https" : "http"}://${host}`
}
