/** Processes: commands that are kept in a sandbox. They outlive their clients, the daemon, and a stop to disk. */

import { z } from "zod"
import { endFields } from "./ended.ts"
import { commandFields, keyFields, ProcessName, SignalName, TerminalSize } from "./exec.ts"
import { limits } from "./limits.ts"

const KeptOutput = z.object({
  first: z.int().describe("Offset of the oldest byte that is kept"),
  total: z.int().describe("Bytes since the process began"),
})

export const ProcessEnd = z.object(endFields).meta({ id: "ProcessEnd" })

export const Process = z
  .object({
    process_id: z.string().describe("`s` and digits for a session, else `p` and digits"),
    sandbox_id: z.string(),
    name: z.string().nullable(),
    kind: z.enum(["session", "command"]).describe("A session has a terminal and is kept"),
    argv: z.array(z.string()),
    user: z.string(),
    cwd: z.string(),
    pid: z.int(),
    tty: z.boolean(),
    running: z.boolean(),
    ended: ProcessEnd.nullable(),
    on_disconnect: z.enum(["kill", "keep"]),
    driven: z.boolean().describe("Whether a client types into it"),
    watchers: z.int(),
    input_open: z.boolean(),
    output: z.object({ stdout: KeptOutput, stderr: KeptOutput }),
    created_at: z.iso.datetime(),
    ended_at: z.iso.datetime().nullable(),
  })
  .meta({ id: "Process" })
export type Process = z.infer<typeof Process>

export const StartProcess = z
  .strictObject({
    ...commandFields,
    key: keyFields.key,
    elapsed_ms: keyFields.elapsed_ms,
    cmd: commandFields.cmd.optional().describe("Program and arguments; default with a terminal: a shell"),
    timeout_sec: commandFields.timeout_sec.describe("Kill it after this many seconds; default none"),
    name: ProcessName.optional().describe("Another running process must not have it"),
    tty: TerminalSize.extend({ term: z.string().max(limits.terminalNameMax).optional() }).optional(),
    stdin: z
      .boolean()
      .default(false)
      .describe("Input may be written later, as to a terminal; otherwise it reads end of file"),
    retain_sec: z
      .number()
      .min(0)
      .max(limits.processRetainSecMax)
      .default(limits.processRetainSecDefault)
      .describe("How long its result and output are kept after its end; time on disk does not count"),
    output_bytes: z
      .int()
      .min(limits.processOutputBytesMin)
      .max(limits.processOutputBytesMax)
      .default(limits.processOutputBytesDefault)
      .describe("Newest output that is kept, for each of stdout and stderr"),
  })
  .refine(({ cmd, tty }) => cmd !== undefined || tty !== undefined, "a command or a terminal is needed")
  .meta({ id: "StartProcess" })
export type StartProcess = z.infer<typeof StartProcess>

export const SignalProcess = z
  .strictObject({
    signal: SignalName.default("TERM"),
    scope: z
      .enum(["session", "foreground", "group"])
      .optional()
      .describe(
        "Default: of a terminal the foreground group, else the command's group; KILL ends the session",
      ),
  })
  .meta({ id: "SignalProcess" })
export const ResizeProcess = TerminalSize.meta({ id: "ResizeProcess" })
export const ProcessDone = z.object({ status: z.literal("ok") })

const flag = z.enum(["true", "false"])
const count = z.coerce.number().pipe(z.int().min(0))
const seconds = z.coerce.number().pipe(z.number().min(0).max(limits.processRetainSecMax))

export const InputQuery = z.strictObject({
  at: count
    .optional()
    .describe("Offset of the first byte: what the program has taken already is skipped, a gap is a conflict"),
  end: flag.default("false").describe("End the input behind these bytes"),
})
export const InputTaken = z.object({ input: z.int().describe("Bytes of input that the program has taken") })

export const WaitQuery = z.strictObject({
  timeout_sec: z.coerce
    .number()
    .pipe(z.number().min(0).max(limits.processWaitSecMax))
    .default(limits.processWaitSecMax)
    .describe("Answer after this time even if it runs still"),
})

export const OutputQuery = z.strictObject({
  stream: z.enum(["stdout", "stderr"]).default("stdout"),
  offset: count.optional().describe("First byte; default: the oldest that is kept"),
  since_sec: seconds.optional().describe("Only output of the last so many seconds"),
  follow: flag.default("false").describe("Go on until the process ends"),
  limit: count.optional().describe("At most so many bytes"),
})

/** Query of a process's WebSocket, whose messages are those of `ExecStart`'s; `from` is a number for each stream. */
export const AttachQuery = z.strictObject({
  mode: z
    .enum(["drive", "watch"])
    .default("watch")
    .describe("The driver types and gets every byte; watchers only read"),
  stdout: count.optional().describe("Offset of the first byte of stdout; default: the oldest that is kept"),
  stderr: count.optional(),
  since_sec: seconds.optional().describe("Only output of the last so many seconds"),
  follow: flag.default("true"),
  writer: z
    .string()
    .regex(/^[!-~]{1,128}$/, "a writer has 1 to 128 printable ASCII characters")
    .optional()
    .describe(
      "A random word of a driver, the same over all its connections: `started` counts its input alone",
    ),
  rows: z.coerce.number().pipe(TerminalSize.shape.rows).optional(),
  cols: z.coerce.number().pipe(TerminalSize.shape.cols).optional(),
  window: z.coerce
    .number()
    .pipe(z.int().min(65_536).max(limits.execStreamWindowBytes))
    .optional()
    .describe("Limit on unacknowledged output bytes in flight; see `ack`"),
})
export type AttachQuery = z.infer<typeof AttachQuery>
