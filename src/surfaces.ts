/** Puts the surfaces together that share the address of the API. */

import type { E2b, EnvdAnswer } from "./e2b/app.ts"
import type { App } from "./http/app.ts"

type Answer = Awaited<ReturnType<App>> | EnvdAnswer

/** A request that the other surface claims is its own; all others are the API's. */
export function beside(
  app: App,
  other: E2b | undefined,
): (request: Request, body: AsyncIterable<Uint8Array>) => Promise<Answer> {
  if (!other) return app
  return async (request, body) =>
    other.claims(request) ? await other.answer(request, body) : await app(request, body)
}
