/** The command `bhatti exec` is the hot path of the whole program, with a single WebSocket. */

import { AppError, type StartReason } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { adviceFor } from "../advice.ts"
import { command } from "../command.ts"
import { envFileOption, envOf, envText } from "../environment.ts"
import { checkFits } from "../exec-fits.ts"
import { exitCodeOfEnd, exitNotExecutable, exitNotFound, exitSandboxSide, exitUsage } from "../exit-codes.ts"
import { whyLost } from "../lost-sandbox.ts"
import { readInputText } from "../standard-input.ts"
import { streamExec } from "../streaming.ts"
import { tellUnreadInput } from "../unread-input.ts"

export const exec = command({
  args: ["sandbox"],
  rest: { name: "command", kind: "command" },
  description: `Everything after the sandbox's name is the command; write -- before it if it could be taken for an option. No shell is involved:
use sh -c '...' for one. It runs as user lohar; sudo inside gives root. Output streams as it comes.

${envText}

With -t the command's TERM is yours if small images know it, otherwise xterm-256color; -e TERM=... overrides it.

Ctrl-C and SIGTERM are forwarded, and the command may take its time to end; a second one kills it, and without a terminal it is
killed 10 s after the first. A command that has not started yet, because its sandbox is still waking, is not run.

A lost connection is opened again, and the command goes on as if nothing had happened. It waits a minute for that
(--reconnect) and is killed then; so it is when bhatti itself is killed. With --json a lost connection ends it at once. With --detach it needs no client at all: see bhatti ps, logs, attach, wait and kill.

Exit code: the command's own, or 128 + the signal that ended it; 2 if an option is wrong, such as a user or a directory
that does not exist; 124 if --timeout ended it; 125 if bhatti failed, 126 if the command cannot be run, 127 if there is no such command; 130 after Ctrl-C.
Where the code hides the reason, such as too little memory, a full disk or a kill, a line on standard error says it; with --json it is in
reason, by and detail.`,
  options: {
    stdin: { type: "flag", short: "i", summary: "Forward standard input" },
    tty: { type: "flag", short: "t", summary: "Run it in a terminal, for interactive programs" },
    env: {
      type: "variables",
      short: "e",
      value: "K=V,...",
      summary: "Environment variables; may be repeated",
    },
    envFile: envFileOption,
    cwd: {
      type: "text",
      short: "w",
      value: "DIR",
      summary: "Working directory; from /workspace if relative",
      fallback: "/workspace",
    },
    user: {
      type: "text",
      short: "u",
      value: "USER",
      summary: "User of the sandbox to run as",
      fallback: "lohar",
    },
    reconnect: {
      type: "seconds",
      value: "TIME",
      max: limits.execGraceSecMax,
      summary: "How long it waits for us after a lost connection",
      fallback: "60",
    },
    detach: { type: "flag", short: "d", summary: "Start it without a client and print its id" },
    name: { type: "text", value: "NAME", summary: "With --detach: a name for it, besides its id" },
    timeout: {
      type: "seconds",
      value: "TIME",
      max: limits.execTimeoutSecMax,
      summary: "Kill it after this time: 90, 5m or 2h",
      fallback: `none; ${limits.execTimeoutSecDefault} with --json`,
    },
  },
  examples: [
    "bhatti exec dev -- npm install",
    "bhatti exec dev -- sh -c 'echo $API_KEY'",
    "bhatti exec dev -- cat /workspace/data.json | jq .name",
    "echo hi | bhatti exec -i dev -- cat",
    "bhatti exec -t dev -- top",
    "bhatti exec -d --name build dev -- make all",
    "bhatti exec -e 'DSN=host=db,port=5432' -e DEBUG=1 --env-file ./app.env dev -- npm test",
  ],
  refuse: ({ options }) =>
    options.name !== undefined && !options.detach ? "--name needs --detach" : undefined,
  async run({ client, args, rest, options, isJson, out, report }) {
    const env = await envOf(options)
    const shared = {
      cmd: rest,
      env,
      cwd: options.cwd,
      user: options.user,
      timeout_sec: options.timeout,
    }
    checkFits(shared)
    const reconnection = options.reconnect === undefined ? {} : { forSec: options.reconnect }
    let run: ExecStream | undefined
    try {
      if (options.detach) {
        const kept = {
          name: options.name,
          stdin: options.stdin,
          ...(options.tty && { tty: detachedTerminal }),
        }
        const process = await client.startProcess({
          params: { id: args.sandbox },
          body: { ...shared, ...kept },
        })
        if (isJson) await out.json(process)
        else await out.result(process.process_id)
        return 0
      }
      if (isJson) {
        const stdin = options.stdin ? { stdin: await readInputText() } : {}
        const { guardTransfer } = await import("../copy/interruption.ts")
        return await guardTransfer({ out, words: "the command is killed" }, async (signal) => {
          const body = { ...shared, ...stdin }
          const result = await client.exec({ params: { id: args.sandbox }, body, signal })
          await out.json(result)
          return exitCodeOfEnd(result)
        })
      }
      if (options.tty) {
        const { Terminal } = await import("../terminal.ts")
        using terminal = await Terminal.open()
        const isInputForwarded = options.stdin || terminal.isInput
        const tty = { ...terminal.size, term: terminal.name }
        const started = client.execStream(
          args.sandbox,
          { ...shared, stdin: isInputForwarded, tty },
          reconnection,
        )
        run = started
        terminal.onResize((size) => started.resize(size))
        return await streamExec(run, { out, isInputForwarded, onOutput: terminal.watch })
      }
      run = client.execStream(args.sandbox, { ...shared, stdin: options.stdin }, reconnection)
      const exitCode = await streamExec(run, { out, isInputForwarded: options.stdin })
      if (!options.stdin) await tellUnreadInput(out)
      return exitCode
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      const isLost = error.code === "unavailable" && run?.hasStarted
      const during = "while the command ran"
      await report(
        isLost ? await whyLost(error, args.sandbox, { client, during }) : withShellHint(error, rest),
      )
      return execExitCode(error)
    }
  },
})

/** Its first client changes the size. */
const detachedTerminal = { rows: 24, cols: 80 }

/** A quoted command line is a single word, and no program has such a name. */
function withShellHint(error: AppError, [program = "", ...more]: readonly string[]): AppError {
  const isMissing = error.code === "not_found" || error.code === "command_not_found"
  const isLine = isMissing && adviceFor(error) === undefined && more.length === 0
  if (!isLine || !/\s/.test(program)) return error
  const hint = 'it is taken as one word; write its words one by one, or: sh -c "..."'
  return error.but({ hint })
}

/** Exit codes for commands that could not start, as shells have them. */
const exitCodesOfReasons: Readonly<Record<StartReason, number | undefined>> = {
  no_user: exitUsage,
  no_directory: exitUsage,
  bad_text: exitUsage,
  no_program: exitNotFound,
  no_interpreter: exitNotFound,
  not_executable: exitNotExecutable,
  wrong_format: exitNotExecutable,
  denied: exitNotExecutable,
  too_long: exitNotExecutable,
  no_resources: exitSandboxSide,
  // The agent of an older sandbox does not say more.
  not_started: undefined,
}

/** The daemon's own refusals have no reason. */
function execExitCode({ code, reason = "" }: AppError): number {
  const exitCode = exitCodesOfReasons[reason as StartReason]
  if (exitCode !== undefined) return exitCode
  if (code === "command_not_found") return exitNotFound
  if (code !== "invalid") return exitSandboxSide
  return reason === "" ? exitUsage : exitNotExecutable
}
