/** Errors on the wire of e2b's agent: codes of the Connect protocol. */

import { Code, ConnectError, type createConnectRouter } from "@connectrpc/connect"
import { encodeEnvelope } from "@connectrpc/connect/protocol"
import {
  codeToHttpStatus,
  codeToString,
  endStreamFlag,
  endStreamToJson,
} from "@connectrpc/connect/protocol-connect"
import type { Core } from "../core/core.ts"
import { toAppError } from "../gate/errors.ts"

/** An error outside of a call: no key, no right, no such path. A stream has it in its last message. */
export function refusal(request: Request, error: unknown): Response {
  const known = toConnectError(error)
  const type = request.headers.get("content-type") ?? ""
  if (type.startsWith(streamType)) {
    const last = Buffer.from(JSON.stringify(endStreamToJson(new Headers(), known, undefined)))
    return new Response(encodeEnvelope(endStreamFlag, last), { headers: { "content-type": streamType } })
  }
  const { code, rawMessage: message } = known
  return Response.json({ code: codeToString(code), message }, { status: codeToHttpStatus(code) })
}

const streamType = "application/connect+json"

const codes = {
  invalid: Code.InvalidArgument,
  unauthenticated: Code.Unauthenticated,
  forbidden: Code.PermissionDenied,
  command_not_found: Code.InvalidArgument,
  not_found: Code.NotFound,
  conflict: Code.AlreadyExists,
  too_large: Code.ResourceExhausted,
  limit_exceeded: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
  internal: Code.Internal,
} as const

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error
  const known = toAppError(error)
  const code = known.reason === "no_user" ? Code.Unauthenticated : codes[known.code]
  return new ConnectError(known.code === "internal" ? "internal error" : known.message, code)
}

/** Errors of `core` become the protocol's; bugs are logged. */
export function told({
  log,
}: Pick<Core, "log">): Parameters<typeof createConnectRouter>[0] extends infer O
  ? NonNullable<NonNullable<O> extends { interceptors?: (infer I)[] } ? I : never>
  : never {
  const fail = (error: unknown): never => {
    const known = toConnectError(error)
    if (known.code === Code.Internal) log.error({ error }, "internal error")
    throw known
  }
  return ((next: (request: never) => Promise<{ stream: boolean; message: AsyncIterable<unknown> }>) =>
    async (request: never) => {
      const response = await next(request).catch(fail)
      if (!response.stream) return response
      const messages = response.message
      async function* explained() {
        try {
          yield* messages
        } catch (error) {
          fail(error)
        }
      }
      return { ...response, message: explained() }
    }) as never
}
