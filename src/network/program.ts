/** Runs the host's network programs: to their end within a deadline, or as long as a caller reads their output. */

import { AppError } from "@bhatti/contract/errors"

const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"
const deadlineMs = 15_000

/**
 * Returns the program's output. Throws an error that names the purpose, with the program's own message as the
 * cause, if it fails.
 */
export async function runProgram(
  purpose: string,
  command: string[],
  options: { input?: string } = {},
): Promise<string> {
  const [name = "", ...rest] = command
  const path = Bun.which(name, { PATH: searchPath })
  if (path === null) {
    throw new AppError("unavailable", `cannot ${purpose}: ${name} is not installed`, {
      hint: "sudo bhatti doctor",
      retryable: false,
    })
  }
  const child = Bun.spawn([path, ...rest], {
    env: { PATH: searchPath, LC_ALL: "C" },
    stdin: options.input === undefined ? "ignore" : Buffer.from(options.input),
    stdout: "pipe",
    stderr: "pipe",
    timeout: deadlineMs,
    killSignal: "SIGKILL",
  })
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (exitCode === 0) return stdout
  throw new AppError("unavailable", `cannot ${purpose}`, {
    cause: new Error(`${command.join(" ")}: ${stderr.trim() || `exit code ${exitCode}`}`),
    hint: "the daemon's log has the cause; sudo bhatti doctor",
  })
}

/** Yields the lines of a long-running program until the signal aborts. */
export async function* programLines(command: string[], signal: AbortSignal): AsyncGenerator<string> {
  const child = Bun.spawn(command, {
    env: { PATH: searchPath, LC_ALL: "C" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    signal,
    killSignal: "SIGKILL",
  })
  let rest = ""
  for await (const bytes of child.stdout) {
    const lines = (rest + Buffer.from(bytes).toString()).split("\n")
    rest = lines.pop() ?? ""
    yield* lines
  }
  await child.exited
}
