/**
 * The operator's connection to the running daemon: a socket in the data directory that only the daemon's own user may
 * open, which is its only authentication. It answers with JSON lines: progress, then a result or an error.
 */

import { rmSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import type { Server } from "bun"
import { z } from "zod"
import { backUp } from "../core/backup.ts"
import type { Core } from "../core/core.ts"

const Backup = z.strictObject({ directory: z.string().startsWith("/") })

export function listenForOperator(
  core: Core,
  path: string,
  { version }: { version: string },
): Server<undefined> {
  rmSync(path, { force: true })
  const maskBefore = process.umask(0o177)
  try {
    return Bun.serve({
      unix: path,
      // The types lack an idle timeout for unix sockets, but the default of ten seconds applies to them too.
      ...({ idleTimeout: 0 } as object),
      development: false,
      async fetch(request) {
        if (request.method !== "POST" || new URL(request.url).pathname !== "/backup")
          return new Response(null, { status: 404 })
        const asked = Backup.safeParse(await request.json())
        if (!asked.success) return new Response(null, { status: 400 })
        return new Response(
          linesOf((report, signal) => backUp(core, { ...asked.data, version, signal, report }), core),
        )
      },
    })
  } catch (cause) {
    throw new AppError("unavailable", `cannot listen on ${path}`, { cause, retryable: false })
  } finally {
    process.umask(maskBefore)
  }
}

/** A client that disconnects aborts the work. */
function linesOf(
  work: (report: (line: string) => void, signal: AbortSignal) => Promise<object>,
  core: Core,
): ReadableStream<Uint8Array> {
  const left = new AbortController()
  const encoder = new TextEncoder()
  return new ReadableStream({
    async start(controller) {
      const send = (line: object) => {
        if (!left.signal.aborted) controller.enqueue(encoder.encode(`${JSON.stringify(line)}\n`))
      }
      try {
        send({ result: await work((progress) => send({ progress }), left.signal) })
      } catch (error) {
        core.log.error({ error }, "an operator's command failed")
        const known = error instanceof AppError ? error : undefined
        const {
          code = "internal",
          message = "an internal error; the daemon's log has the details",
          hint,
          subject,
        } = known ?? {}
        send({ error: { code, message, hint, subject } })
      }
      if (!left.signal.aborted) controller.close()
    },
    cancel: () => left.abort(new AppError("conflict", "the client has disconnected")),
  })
}
