/** From a request for e2b's agent to its sandbox and the key behind it: by a token, or by a signed address. */

import { timingSafeEqual } from "node:crypto"
import { AppError } from "@bhatti/contract/errors"
import type { SandboxId } from "@bhatti/contract/ids"
import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import { holderOfKey } from "../gate/authenticate.ts"
import { hostName } from "../lib/host-name.ts"
import { RateLimiter } from "../lib/rate-limit.ts"
import { keyOf, sandboxIdOf } from "./ids.ts"

const sandboxHeader = "e2b-sandbox-id"
const portHeader = "e2b-sandbox-port"
const tokenHeader = "x-access-token"
/** Where e2b's agent listens, as its SDKs name it. */
const agentPort = "49983"
export const filesPath = "/files"

/** A signed address without a sandbox costs a look at all of them. */
const searchRate = { burst: 60, perMinute: 600 }

const tokenSyntax = /^sbt_[0-9a-f]{64}$/
const agentLabel = new RegExp(`^${agentPort}-([0-9a-f]{16})$`)

/** Returns whether a name one label below the domain is that of a sandbox's agent. */
export function isAgentLabel(label: string): boolean {
  return agentLabel.test(label)
}

/** A SHA-256 in base64 without its padding. */
const signatureSyntax = /^v1_[A-Za-z0-9+/]{43}$/

export type Asked = {
  /** Undefined: the token was one of a sandbox that is gone. */
  holder: KeyHolder | undefined
  /** As on the wire. */
  sandbox: string
}

export class EnvdCallers {
  readonly #core: Pick<Core, "keys" | "events" | "settings" | "clock" | "store">
  readonly #searches = new RateLimiter(searchRate, { bucketsMax: 1 })

  constructor(core: Pick<Core, "keys" | "events" | "settings" | "clock" | "store">) {
    this.#core = core
  }

  /** Returns whether the request is for the agent of a sandbox. */
  claims(request: Request): boolean {
    const { headers } = request
    if (headers.has(sandboxHeader)) return headers.get(portHeader) === agentPort
    return this.sandboxOfHost(headers) !== undefined || signatureOf(new URL(request.url)) !== null
  }

  /** Returns the id in the name of the host, as on the wire. */
  sandboxOfHost(headers: Headers): string | undefined {
    const name = hostName(headers.get("host") ?? "")
    const { domain } = this.#core.settings.publicAddress
    const label = name.endsWith(`.${domain}`) ? name.slice(0, -domain.length - 1) : ""
    return agentLabel.exec(label)?.[1]
  }

  async of(request: Request): Promise<Asked> {
    const { headers } = request
    // As at e2b, a name of a host comes before headers.
    const sandbox = this.sandboxOfHost(headers) ?? headers.get(sandboxHeader) ?? undefined
    const token = headers.get(tokenHeader)
    if (token === null && new URL(request.url).pathname === filesPath)
      return await this.#signed(request, sandbox)
    const hint = "the SDK sends the access token of the sandbox in X-Access-Token"
    const id = sandbox === undefined ? undefined : knownId(sandbox)
    const found =
      id && token ? await this.#core.keys.findByToken(id, (one) => isEqual(one, token)) : undefined
    const isOfSandbox = token !== null && tokenSyntax.test(token)
    if (!found && isOfSandbox && !(id && (await this.#core.store.sandboxes.get(id))))
      return { holder: undefined, sandbox: sandbox ?? "" }
    const holder = found?.holder ?? (await holderOfKey(this.#core, keyOf(token), { hint }))
    return { holder, sandbox: sandbox ?? "" }
  }

  /** A signature is made with the token of the sandbox, so it is good for what the token is good for. */
  async #signed(request: Request, sandbox: string | undefined): Promise<Asked> {
    const url = new URL(request.url)
    const given = signatureOf(url)
    if (given === null) throw refused("missing signature query parameter")
    if (!signatureSyntax.test(given)) throw refused("invalid signature")
    const query = url.searchParams
    const operation = request.method === "GET" ? "read" : "write"
    const user = query.get("username") ?? ""
    const expiration = query.get("signature_expiration")
    // A colon would shift the parts of what was signed.
    if (user.includes(":")) throw refused("invalid signature")
    const isMeant = (token: string) => {
      const parts = [query.get("path") ?? "", operation, user, token, ...(expiration ? [expiration] : [])]
      const hash = new Bun.CryptoHasher("sha256").update(parts.join(":")).digest("base64")
      return isEqual(given, `v1_${hash.replace(/=+$/, "")}`)
    }
    const id = sandbox === undefined ? undefined : knownId(sandbox)
    if (sandbox === undefined) this.#countSearch()
    const isUnknown = sandbox !== undefined && id === undefined
    const found = isUnknown ? undefined : await this.#core.keys.findByToken(id, isMeant)
    if (!found) {
      this.#core.events.refusedKey()
      throw refused("invalid signature")
    }
    if (expiration !== null && !(Number(expiration) * 1000 > this.#core.clock.unixMs()))
      throw refused("signature is already expired")
    return { holder: found.holder, sandbox: sandbox ?? found.sandboxId.slice(3) }
  }

  #countSearch(): void {
    const decision = this.#searches.take("", performance.now())
    if (decision.kind === "allowed") return
    throw new AppError("limit_exceeded", "too many signed addresses that name no sandbox", {
      retryable: true,
      retryAfterSec: Math.ceil(decision.retryAfterMs / 1000),
    })
  }
}

function refused(message: string): AppError {
  return new AppError("unauthenticated", message)
}

function signatureOf({ pathname, searchParams }: URL): string | null {
  return pathname === filesPath ? searchParams.get("signature") : null
}

function knownId(sandbox: string): SandboxId | undefined {
  try {
    return sandboxIdOf(sandbox)
  } catch {
    return undefined
  }
}

function isEqual(one: string, other: string): boolean {
  const [a, b] = [one, other].map((text) => new Bun.CryptoHasher("sha256").update(text).digest())
  return a !== undefined && b !== undefined && timingSafeEqual(a, b)
}
