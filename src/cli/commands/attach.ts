/** The command `bhatti attach` types into a process that runs already, or watches it. */

import { AppError } from "@bhatti/contract/errors"
import type { Process } from "@bhatti/contract/process"
import type { Client } from "@bhatti/sdk/client"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import type { TerminalStream } from "../attach-terminal.ts"
import { command, type DaemonContext } from "../command.ts"
import { exitCodeOfEnd, exitSandboxSide } from "../exit-codes.ts"
import { isTerminal, type Output } from "../output.ts"
import { onSignals, signalExitCodes } from "../signals.ts"
import { readInput } from "../standard-input.ts"
import { copyOutput } from "../streaming.ts"

export const attach = command({
  args: ["sandbox", "process"],
  description: `PROCESS is an id or a name that bhatti ps shows. Its output follows from the oldest byte that is kept. One client drives a process: it types, and the
program waits for it if it reads slowly. Any number of others watch with --watch, and slow nobody.

Ctrl+\\ leaves a terminal; Ctrl-C leaves what is only watched. The process runs on. A lost connection is opened again.

Exit code: the process's own, 124 if its time was over; 0 after leaving; 125 if bhatti failed or another client has taken the process over.`,
  options: {
    watch: { type: "flag", short: "w", summary: "Only look" },
    stdin: { type: "flag", short: "i", summary: "Forward standard input to a process without a terminal" },
  },
  refuse: ({ options }) =>
    options.watch && options.stdin ? "--watch types nothing; leave -i out" : undefined,
  examples: [
    "bhatti attach dev p2",
    "bhatti attach dev s1 --watch",
    "echo quit | bhatti attach -i dev server",
  ],
  async run({ client, args, options, out, report }) {
    try {
      const params = { id: args.sandbox, process: args.process }
      const process = await client.getProcess({ params })
      const isTyping = process.tty && !options.watch && (await isTerminal(0)) && (await isTerminal(1))
      const again = `bhatti attach ${args.sandbox} ${args.process}`
      if (isTyping) return await inTerminal(client, process, { again, out, report })
      if (options.stdin && process.running && !process.input_open) throw takesNoInput(args)
      return await asStream(client, process, { out, isInputForwarded: options.stdin })
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      await report(error)
      return exitSandboxSide
    }
  },
})

function takesNoInput({ sandbox, process }: { sandbox: string; process: string }): AppError {
  return new AppError(
    "conflict",
    `process "${process}" takes no input: it was started without -i, or its input has ended`,
    { hint: `bhatti exec -d -i ${sandbox} -- COMMAND` },
  )
}

async function inTerminal(
  client: Client,
  { sandbox_id: sandbox, process_id: process }: Process,
  { again, out, report }: { again: string; out: Output; report: DaemonContext["report"] },
): Promise<number> {
  const [{ attachTerminal }, { Terminal }] = await Promise.all([
    import("../attach-terminal.ts"),
    import("../terminal.ts"),
  ])
  const attached = async () => {
    using terminal = await Terminal.open()
    return await attachTerminal({
      terminal,
      out,
      open: ({ rows, cols }) =>
        terminalStream(client.processStream(sandbox, process, { mode: "drive", rows, cols }), process),
    })
  }
  const { left } = await attached()
  switch (left.kind) {
    case "exited":
      return left.exitCode
    case "detached":
      await out.talk(`\nleft; it keeps running. Come back: ${again}`)
      return left.exitCode
    case "taken_over":
      return exitSandboxSide
    case "lost":
      await out.talk("")
      await report(left.error)
      return exitSandboxSide
  }
}

function terminalStream(stream: ExecStream, process: string): TerminalStream {
  return {
    session: stream.started.then(() => ({ session_id: process, name: null, is_new: false })),
    output: stream.output,
    end: stream.exit.then((exit) => ({ kind: "exited", exitCode: exitCodeOfEnd(exit), signal: exit.signal })),
    type: (keys) => void stream.write(keys),
    resize: (size) => stream.resize(size),
    close: () => stream.leave(),
    closed: (options) => stream.closed(options),
  }
}

async function asStream(
  client: Client,
  { sandbox_id: sandbox, process_id: process }: Process,
  { out, isInputForwarded }: { out: Output; isInputForwarded: boolean },
): Promise<number> {
  const stream = client.processStream(sandbox, process, { mode: isInputForwarded ? "drive" : "watch" })
  const { promise: left, resolve: leave } = Promise.withResolvers<number>()
  using _listening = onSignals(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"], (signal) =>
    leave(signal === "SIGINT" || signal === "SIGQUIT" ? 0 : signalExitCodes[signal]),
  )
  const reading = copyOutput({ output: stream.output, close: () => stream.leave() }, { out })
  const ended = reading.then(() => stream.exit).then(exitCodeOfEnd)
  const failed = isInputForwarded ? forwardInput(stream) : new Promise<never>(() => {})
  try {
    return await Promise.race([ended, left, failed])
  } finally {
    stream.leave()
    // The shell that follows must not run these keys.
    if (!isInputForwarded && (await isTerminal(0))) (await import("../terminal.ts")).dropTypedKeys()
  }
}

/** Settles only if our input cannot be read. */
async function forwardInput(stream: ExecStream): Promise<never> {
  for await (const bytes of readInput()) await stream.write(bytes)
  stream.endInput()
  return await new Promise<never>(() => {})
}
