/** Running a command: the request, its buffered answer, its NDJSON events and its WebSocket messages. */

import { z } from "zod"
import { endFields } from "./ended.ts"
import { Argument } from "./image-config.ts"
import { limits } from "./limits.ts"
import { NoticeMessage } from "./notice.ts"
import { Env } from "./sandbox.ts"
import { ErrorReason, ErrorSubject, StreamError } from "./system.ts"

export const TerminalSize = z.strictObject({
  rows: z.int().min(1).max(limits.terminalSideMax),
  cols: z.int().min(1).max(limits.terminalSideMax),
})
export type TerminalSize = z.infer<typeof TerminalSize>

export const SignalName = z
  .enum(["HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "CONT", "STOP", "TSTP", "WINCH"])
  .describe("A signal's name without SIG")
export type SignalName = z.infer<typeof SignalName>

export const ProcessName = z
  .string()
  .regex(
    /^[a-zA-Z][a-zA-Z0-9._-]{0,62}$/,
    "a process's name has letters, digits, dots, underscores or hyphens",
  )
  .refine((name) => !/^[ps][0-9]+$/.test(name), "a process's name must not look like an id")

/** Fields of every request that starts a command. */
export const commandFields = {
  cmd: z
    .array(Argument)
    .min(1, "a command is needed")
    .max(limits.execArgsMax)
    .refine((cmd) => (cmd[0] ?? "") !== "", "the program's name is empty")
    .refine(
      (cmd) => cmd.reduce((sum, argument) => sum + argument.length + 1, 0) <= limits.execRequestBytesMax,
      `a command has at most ${limits.execRequestBytesMax} bytes`,
    )
    .describe("Program and arguments; no shell is involved"),
  env: Env.default({}).describe("Variables added to the sandbox's environment for this command"),
  cwd: z
    .string()
    .min(1)
    .max(limits.guestPathMax)
    .optional()
    .describe("Working directory; default, and where a relative one begins: /workspace, or the image's own"),
  user: z
    .string()
    .regex(limits.guestUserPattern, limits.guestUserRule)
    .optional()
    .describe("USER or USER:GROUP of the guest, names or ids; default lohar, or the image's own"),
  timeout_sec: z
    .number()
    .positive()
    .max(limits.execTimeoutSecMax)
    .optional()
    .describe(
      `Kill the command after this many seconds; default ${limits.execTimeoutSecDefault} for HTTP, none for a stream over WebSocket`,
    ),
}

export const StreamOffsets = z
  .object({ stdout: z.int().min(0), stderr: z.int().min(0) })
  .describe("Bytes of each stream since the command began; a terminal has stdout only")
  .meta({ id: "StreamOffsets" })

/** A command's key: the same key gives the same command, never a second run. */
export const keyFields = {
  key: z
    .string()
    .regex(/^[!-~]{1,128}$/, "a key has 1 to 128 printable ASCII characters")
    .optional()
    .describe(
      `A random word of the client. Requests with the same key give the same command, which waits for a client that was lost; a buffered result is kept for ${limits.execRetainSec} s. A conflict has a reason: key_reused (by another command), forgotten (its result is not kept any more) or rebooted (it may have run before the sandbox booted)`,
    ),
  elapsed_ms: z
    .int()
    .min(0)
    .default(0)
    .describe("Time since the client first sent this key; 0 in the first request"),
  grace_sec: z
    .number()
    .min(0)
    .max(limits.execGraceSecMax)
    .default(limits.execGraceSec)
    .describe("How long a command with a key waits for a client that was lost, before it is killed"),
}

export const Exec = z
  .strictObject({
    ...commandFields,
    ...keyFields,
    stdin: z.string().max(limits.requestBodyBytesMax).optional().describe("Text for its standard input"),
  })
  .meta({ id: "Exec" })
export type Exec = z.infer<typeof Exec>

export const ExecResult = z
  .object({
    ...endFields,
    stdout: z.string(),
    stderr: z.string(),
    truncated: z
      .boolean()
      .describe(`stdout or stderr had more than ${limits.execBufferedBytesMax} bytes; the rest was dropped`),
  })
  .meta({ id: "ExecResult" })
export type ExecResult = z.infer<typeof ExecResult>

const Exit = z.object({ type: z.literal("exit"), ...endFields })

/** A line of the `application/x-ndjson` response. The last line is `exit` or `error`. */
export const ExecEvent = z
  .discriminatedUnion("type", [
    z.object({ type: z.literal("stdout"), data: z.string() }),
    z.object({ type: z.literal("stderr"), data: z.string() }),
    Exit,
    z.object({
      type: z.literal("error"),
      data: z.string(),
      code: z.string(),
      hint: z.string().nullable(),
      subject: ErrorSubject.optional(),
      reason: ErrorReason.optional(),
      retryable: z.boolean().optional(),
    }),
  ])
  .meta({ id: "ExecEvent" })
export type ExecEvent = z.infer<typeof ExecEvent>

/**
 * WebSocket `/sandboxes/:id/exec/ws`. The client's first message is `ExecStart` as text. Then:
 *
 *   client → server  binary: standard input;   text: `ExecClientMessage`
 *   server → client  binary: one byte channel (1 stdout, 2 stderr), then output;   text: `ExecServerMessage`
 *
 * With `window` the server never has more than that many unacknowledged output bytes in flight; the client acknowledges
 * with `ack`. The last message is `exit` or `error`; then the server closes. Closing the socket earlier kills the
 * command; one with a key waits for its client first, who sends the key again, `from` the bytes that it has. Its
 * `started` tells how much the program has taken of the input of clients with this key (`written`), behind which the
 * client goes on.
 * The server acknowledges standard input with `ack` too; a client should keep at most `window` bytes unacknowledged.
 */
export const ExecStart = z
  .strictObject({
    ...commandFields,
    ...keyFields,
    from: StreamOffsets.optional().describe("Offsets of the first bytes of output that the client lacks"),
    name: ProcessName.optional().describe("Another running process must not have it"),
    stdin: z.boolean().default(false).describe("Standard input follows as binary messages"),
    tty: TerminalSize.extend({ term: z.string().max(limits.terminalNameMax).optional() })
      .optional()
      .describe("Run in a terminal of this size"),
    window: z
      .int()
      .min(65_536)
      .max(limits.execStreamWindowBytes)
      .optional()
      .describe(
        `Output that may be unacknowledged; with a key at most ${limits.execKeyedWindowBytes}, which is then its default too`,
      ),
  })
  .meta({ id: "ExecStart" })
export type ExecStart = z.infer<typeof ExecStart>

export const ExecClientMessage = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("stdin_end") }),
  z.strictObject({ type: z.literal("signal"), signal: SignalName }),
  z.strictObject({ type: z.literal("resize"), rows: TerminalSize.shape.rows, cols: TerminalSize.shape.cols }),
  z.strictObject({ type: z.literal("ack"), bytes: z.int().positive() }),
])
export type ExecClientMessage = z.infer<typeof ExecClientMessage>

export const ExecServerMessage = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("started"),
    pid: z.int(),
    process_id: z.string().optional().describe("Missing if nobody can attach to the command again"),
    is_new: z.boolean().optional(),
    from: StreamOffsets.optional().describe("Offsets of the first bytes of output that follow"),
    input: z.int().optional().describe("Bytes of input that the program has taken"),
    written: z
      .int()
      .optional()
      .describe(
        "Bytes of these from clients with this key or `writer`; missing in a sandbox that does not count them",
      ),
  }),
  z.object({
    type: z.literal("skipped"),
    stdout: z.int(),
    stderr: z.int(),
  }),
  z.object({ type: z.literal("left") }),
  z.object({
    type: z.literal("show"),
    text: z.string().describe("For the terminal at this place; it is no output and does not count"),
  }),
  z.object({ type: z.literal("ack"), bytes: z.int() }),
  NoticeMessage,
  Exit,
  StreamError,
])
export type ExecServerMessage = z.infer<typeof ExecServerMessage>
