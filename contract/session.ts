/** Sessions: commands with a terminal that outlive their client. */

import { z } from "zod"
import { endFields } from "./ended.ts"
import { SignalName, TerminalSize } from "./exec.ts"
import { limits } from "./limits.ts"
import { NoticeMessage } from "./notice.ts"
import { StreamError } from "./system.ts"

export const SessionId = z.string().regex(/^s[0-9]{1,9}$/)

export const SessionName = z
  .string()
  .regex(
    /^[a-zA-Z][a-zA-Z0-9._-]{0,62}$/,
    "a session's name has letters, digits, dots, underscores or hyphens",
  )

export const Session = z
  .object({
    session_id: SessionId,
    name: z.string().nullable().describe("`init` is the session of the sandbox's init script"),
    argv: z.array(z.string()),
    tty: z.literal(true),
    running: z.boolean(),
    exit_code: z.int().nullable(),
    signal: z.string().nullable(),
    pid: z.int(),
    attached: z.boolean().describe("Whether a client is attached"),
    created_at: z.iso.datetime(),
  })
  .meta({ id: "Session" })
export type Session = z.infer<typeof Session>

export const KillSession = z.strictObject({ signal: SignalName.default("KILL") }).meta({ id: "KillSession" })
export const KilledSession = z.object({ status: z.literal("killed") })

/** Query of the shell's WebSocket. */
export const ShellQuery = z.strictObject({
  session: z.string().max(64).optional().describe("Id or name of the session to attach to"),
  new: z.enum(["true", "false"]).default("false").describe("Start another session even if one is detached"),
  rows: z.coerce.number().pipe(TerminalSize.shape.rows).default(24),
  cols: z.coerce.number().pipe(TerminalSize.shape.cols).default(80),
  term: z.string().max(limits.terminalNameMax).default("xterm-256color"),
  window: z.coerce
    .number()
    .pipe(
      z
        .int()
        .min(65_536)
        .max(1024 * 1024),
    )
    .optional()
    .describe("Limit on unacknowledged output bytes in flight; see `ack`"),
})
export type ShellQuery = z.infer<typeof ShellQuery>

/**
 * WebSocket `/sandboxes/:id/ws`: attaches to the requested session, else to the newest detached one, else to a new one.
 *
 *   client → server  binary, or any other text: keystrokes;   text: `ShellClientMessage`
 *   server → client  text: `ShellServerMessage`;   binary: the terminal's output, starting with its earlier output
 *
 * Closing the socket detaches; the session keeps running.
 */
export const ShellClientMessage = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("resize"), rows: TerminalSize.shape.rows, cols: TerminalSize.shape.cols }),
  z.strictObject({ type: z.literal("signal"), signal: SignalName }),
  z.strictObject({ type: z.literal("ack"), bytes: z.int().positive() }),
])
export type ShellClientMessage = z.infer<typeof ShellClientMessage>

export const ShellServerMessage = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("session"),
    session_id: z.string(),
    name: z.string().nullable(),
    is_new: z.boolean(),
  }),
  z.object({ type: z.literal("exit"), ...endFields }),
  z.object({ type: z.literal("taken_over") }),
  NoticeMessage,
  StreamError,
])
export type ShellServerMessage = z.infer<typeof ShellServerMessage>
