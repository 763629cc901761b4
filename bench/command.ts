/** Runs a command the way a shell would and measures wall time: from before it is started until it is gone. */

export type TimedCommand = {
  ms: number
  /** Until its first byte on standard output; `ms` if there was none. */
  firstOutputMs: number
  stdout: string
}

const commandDeadlineMs = 120_000

/** Throws when the command fails: the time of a failure means nothing. */
export async function timeCommand(
  argv: string[],
  options: { env: Record<string, string>; cwd: string },
): Promise<TimedCommand> {
  const startedAt = performance.now()
  const child = Bun.spawn(argv, { ...options, stdin: "ignore", stdout: "pipe", stderr: "pipe" })
  const timer = setTimeout(() => child.kill("SIGKILL"), commandDeadlineMs)
  const stderr = new Response(child.stderr).text()
  let firstOutputMs: number | undefined
  const decoder = new TextDecoder()
  let stdout = ""
  for await (const chunk of child.stdout) {
    firstOutputMs ??= performance.now() - startedAt
    stdout += decoder.decode(chunk, { stream: true })
  }
  const exitCode = await child.exited
  const ms = performance.now() - startedAt
  clearTimeout(timer)
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: exit code ${exitCode}: ${(await stderr).trim()}`)
  return { ms, firstOutputMs: firstOutputMs ?? ms, stdout }
}
