/** The headers by which a browser lets other sites' pages use the API. */

import { truncatedHeader } from "@bhatti/contract/limits"
import type { MiddlewareHandler } from "hono"
import { cors } from "hono/cors"

/** Lets pages of these origins read the API's answers. No cookie counts: a page has a key or nothing. */
export function allowOrigins(origins: readonly string[]): MiddlewareHandler {
  return cors({
    origin: [...origins],
    allowMethods: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    allowHeaders: ["Authorization", "Content-Type", "X-Request-Id", "Range", "If-Range", "If-None-Match"],
    exposeHeaders: [
      ...["Retry-After", "X-Request-Id", "X-Bhatti-Version", "X-Bhatti-Existing", truncatedHeader],
      ...["X-File-Size", "X-File-Mode", "X-File-IsDir", "Accept-Ranges", "Content-Range", "ETag"],
    ],
    maxAge: 600,
  })
}
