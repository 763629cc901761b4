/** Puts the surfaces together that share the address of the API. */

import type { E2b } from "./e2b/app.ts"
import type { App } from "./http/app.ts"

/** A request that the other surface claims is its own; all others are the API's. */
export function beside(app: App, other: E2b | undefined): App {
  if (!other) return app
  return async (request, body, upgrade) =>
    other.claims(request)
      ? { response: await other.answer(request, body), bytes: undefined }
      : await app(request, body, upgrade)
}
