/** What an endpoint is: data from which routes, parsing, the client and OpenAPI are made. */

import type { z } from "zod"

export type Endpoint = {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  /** Hono's syntax: `/sandboxes/:id`. */
  path: string
  summary: string
  /** Whether a key is needed. Default: yes. */
  isPublic?: true
  query?: z.ZodType
  body?: z.ZodType
  /** What other clients of the interface say in the body and this one has not: accepted while it is empty. Nulls are then left out. */
  emptyFields?: readonly string[]
  /** The body is bytes, streamed; not JSON. */
  bodyBytes?: true
  reply: z.ZodType
  /** The good answer is, or can be, bytes. */
  replyBytes?: true
  /** Status of the good answer. */
  status: 200 | 201 | 204 | 101
  /** Status of the good answer, with the same reply, when what was asked for was there already. */
  existingStatus?: 200
  /** Content type of a streamed alternative to the JSON answer, and the shape of one event in it. */
  stream?: { accept: string; event: z.ZodType }
  /** A WebSocket: the first message, further ones, and the server's. */
  socket?: { start: z.ZodType; client: z.ZodType; server: z.ZodType }
}

export function endpoint<const E extends Endpoint>(definition: E): E {
  return definition
}
