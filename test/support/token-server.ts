/** A server of tokens for a registry, after Docker's protocol: it asks for a password and signs what may be done. */

import { createPrivateKey, sign } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"

export type TokenServer = {
  /** With the port. */
  host: string
  /** Scopes that were asked for, with the user; empty: nobody. */
  asked: { user: string; scope: string }[]
} & AsyncDisposable

export const tokenService = "registry.test"
export const tokenIssuer = "tokens.test"

/** `directory` has the certificate and the key that the registry trusts. */
export function startTokenServer(
  directory: string,
  login: { username: string; password: string },
): TokenServer {
  const cert = readFileSync(join(directory, "cert.pem"), "utf8")
  const key = readFileSync(join(directory, "key.pem"), "utf8")
  const asked: TokenServer["asked"] = []
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    tls: { cert, key },
    fetch(request) {
      const encoded = request.headers.get("authorization")?.replace("Basic ", "") ?? ""
      const [user = "", password] = Buffer.from(encoded, "base64").toString("utf8").split(":")
      const scopes = new URL(request.url).searchParams.getAll("scope")
      asked.push(...scopes.map((scope) => ({ user, scope })))
      if (user !== "" && (user !== login.username || password !== login.password))
        return Response.json({ errors: [] }, { status: 401 })
      const access = user === "" ? [] : scopes.map(accessOf)
      return Response.json({ token: tokenOf({ cert, key, user, access }), expires_in: 300 })
    },
  })
  return {
    host: `127.0.0.1:${server.port}`,
    asked,
    async [Symbol.asyncDispose]() {
      await server.stop(true)
    },
  }
}

function accessOf(scope: string) {
  const [type, ...rest] = scope.split(":")
  return { type, name: rest.slice(0, -1).join(":"), actions: (rest.at(-1) ?? "").split(",") }
}

function tokenOf(given: { cert: string; key: string; user: string; access: unknown[] }): string {
  const now = Math.floor(Date.now() / 1000)
  const der = given.cert.replace(/-----[A-Z ]+-----|\s/g, "")
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const text = [
    part({ typ: "JWT", alg: "ES256", x5c: [der] }),
    part({
      ...{ iss: tokenIssuer, aud: tokenService, sub: given.user, access: given.access },
      ...{ iat: now, nbf: now - 60, exp: now + 300, jti: crypto.randomUUID() },
    }),
  ].join(".")
  const key = { key: createPrivateKey(given.key), dsaEncoding: "ieee-p1363" } as const
  return `${text}.${sign("sha256", Buffer.from(text), key).toString("base64url")}`
}
