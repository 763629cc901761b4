/** A command of a sandbox with our terminal or standard streams: the core of `bhatti exec` and `bhatti run`. */

import { AppError, type StartReason } from "@bhatti/contract/errors"
import type { ExecStream, ExecStreamStart } from "@bhatti/sdk/exec-stream"
import { adviceFor } from "./advice.ts"
import type { DaemonContext } from "./command.ts"
import { exitNotExecutable, exitNotFound, exitSandboxSide, exitUsage } from "./exit-codes.ts"
import { whyLost } from "./lost-sandbox.ts"
import { isTerminal, type Output } from "./output.ts"
import { streamExec } from "./streaming.ts"
import { tellUnreadInput } from "./unread-input.ts"

type Context = Pick<DaemonContext, "client" | "report"> & { out: Output }
type Wanted = {
  sandbox: string
  start: Omit<ExecStreamStart, "stdin" | "tty" | "cmd"> & { cmd: string[] }
  hasTerminal: boolean
  isInputForwarded: boolean
  reconnectSec: number | undefined
}

/**
 * The error of `-it` at no terminal: the end of a pipe or a file is no key, and the program would wait for keys for
 * ever.
 */
export async function refuseKeys(
  tool: "exec" | "run",
  { stdin, tty }: { stdin: boolean; tty: boolean },
): Promise<AppError | undefined> {
  if (!stdin || !tty || (await isTerminal(0))) return undefined
  return new AppError("invalid", `${tool} -it needs a terminal for input`, {
    hint: `bhatti ${tool} -i   (without -t, input may come from a pipe or a file)`,
  })
}

/** Returns the command's exit code. */
export async function execHere({ client, out, report }: Context, wanted: Wanted): Promise<number> {
  const { sandbox, start, isInputForwarded: isAsked } = wanted
  const reconnection = wanted.reconnectSec === undefined ? {} : { forSec: wanted.reconnectSec }
  let run: ExecStream | undefined
  try {
    if (wanted.hasTerminal) {
      const { Terminal } = await import("./terminal.ts")
      using terminal = await Terminal.open()
      const isInputForwarded = isAsked || terminal.isInput
      const tty = { ...terminal.size, term: terminal.name }
      const started = client.execStream(sandbox, { ...start, stdin: isInputForwarded, tty }, reconnection)
      run = started
      terminal.onResize((size) => started.resize(size))
      return await streamExec(run, { out, isInputForwarded, onOutput: terminal.watch })
    }
    run = client.execStream(sandbox, { ...start, stdin: isAsked }, reconnection)
    const exitCode = await streamExec(run, { out, isInputForwarded: isAsked })
    if (!isAsked) await tellUnreadInput(out)
    return exitCode
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return await reportExec(error, { client, report, sandbox, cmd: start.cmd, hasStarted: run?.hasStarted })
  }
}

/** Reports the error of a command, and returns its exit code. */
export async function reportExec(
  error: AppError,
  context: Pick<Context, "client" | "report"> & {
    sandbox: string
    cmd: readonly string[]
    hasStarted?: boolean | undefined
  },
): Promise<number> {
  const { client, report, sandbox, cmd, hasStarted } = context
  const isLost = error.code === "unavailable" && hasStarted
  const during = "while the command ran"
  await report(isLost ? await whyLost(error, sandbox, { client, during }) : withShellHint(error, cmd))
  return execExitCode(error)
}

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
