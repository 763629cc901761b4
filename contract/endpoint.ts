/** The definition of an endpoint: data from which routes, parsing, the client and OpenAPI are derived. */

import type { z } from "zod"

export type Endpoint = {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  /** Hono's syntax: `/sandboxes/:id`. */
  path: string
  summary: string
  /** True if no key is needed. */
  isPublic?: true
  query?: z.ZodType
  body?: z.ZodType
  /** Body fields that other clients send and this API lacks: accepted while empty. Nulls are then removed. */
  emptyFields?: readonly string[]
  /** The body is streamed bytes, not JSON. */
  bodyBytes?: true
  reply: z.ZodType
  /** The success answer is, or can be, bytes. */
  replyBytes?: true
  /** A GET of bytes answers Range, If-Range and If-None-Match too. */
  ranges?: true
  /** Status of a success. */
  status: 200 | 201 | 202 | 204 | 101
  /** Status of a success, with the same reply, if the resource already existed. */
  existingStatus?: 200
  /** Content type of a streamed alternative to the JSON answer, and the shape of its events. */
  stream?: { accept: string; event: z.ZodType }
  /** A WebSocket: the first message, later ones, and the server's. */
  socket?: { start: z.ZodType; client: z.ZodType; server: z.ZodType }
}

export function endpoint<const E extends Endpoint>(definition: E): E {
  return definition
}

/** The names of a path's parameters: `"id"` for `/sandboxes/:id`. */
export type PathParameter<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Name | PathParameter<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? Name
    : never
