/** Serves MCP over standard input and output until the client closes them; running commands are killed then. */

import { finished } from "node:stream/promises"
import type { Client } from "@bhatti/sdk/client"
import { serveStdio } from "@modelcontextprotocol/server/stdio"
import { mcpServer, type RunningCalls } from "./server.ts"

/** How long cancelled calls have to kill their commands. */
const endMs = 6000

/** Resolves when the client has gone or the signal has aborted, and no call runs any more. */
export async function serveOverStdio(client: Client, signal: AbortSignal): Promise<void> {
  const running: RunningCalls = new Set()
  const serving = serveStdio(() => mcpServer(client, running))
  const { promise: stopped, resolve } = Promise.withResolvers<void>()
  signal.addEventListener("abort", () => resolve(), { once: true })
  if (signal.aborted) resolve()
  // A client that breaks the pipe has gone too.
  const gone = finished(process.stdin, { writable: false }).catch(() => undefined)
  await Promise.race([gone, stopped])
  await serving.close()
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, endMs)
  await Promise.race([Promise.allSettled(running), late.promise])
  clearTimeout(timer)
}
