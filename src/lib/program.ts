/**
 * Runs an external program to its end: argument list (never a shell string), deadline, bounded output, and an error
 * that carries the end of stderr. Not for background or interactive programs.
 */
import { AppError } from "@bhatti/contract/errors"

const stdoutBytesMaxDefault = 1024 * 1024
const stderrTailBytes = 4096
/** Time a program gets to clean up (mmdebstrap unmounts) between SIGTERM and SIGKILL. */
const graceMs = 10_000

export type ProgramOptions = {
  deadlineMs: number
  cwd?: string | undefined
  env?: Record<string, string>
  /** The program is found only there, and does not get this process's environment. */
  searchPath?: string
  stdin?: Uint8Array | undefined
  /** Limit on stdout, default 1 MiB. */
  stdoutBytesMax?: number
  /** The error for a failure, if another one says more. */
  failure?: (why: ProgramFailure) => AppError
}

export type ProgramFailure = { kind: "missing" } | { kind: "failed"; words: string; stderr: string }

/** Returns the program's stdout. Throws if it is missing, fails, prints too much or takes too long. */
export async function runProgram(command: readonly string[], options: ProgramOptions): Promise<Buffer> {
  const [name = ""] = command
  const { failure = failureOf(name), searchPath } = options
  const path = Bun.which(name, searchPath === undefined ? {} : { PATH: searchPath })
  if (path === null) throw failure({ kind: "missing" })
  const child = Bun.spawn([path, ...command.slice(1)], {
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    env: {
      ...(searchPath === undefined ? process.env : { PATH: searchPath }),
      // Messages in English, and no package script that waits for an answer.
      LC_ALL: "C",
      DEBIAN_FRONTEND: "noninteractive",
      ...options.env,
    },
    stdin: options.stdin ?? "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })

  const stdoutBytesMax = options.stdoutBytesMax ?? stdoutBytesMaxDefault
  let why: string | undefined
  let killTimer: ReturnType<typeof setTimeout> | undefined
  const stop = (reason: string) => {
    why ??= reason
    child.kill("SIGTERM")
    killTimer ??= setTimeout(() => child.kill("SIGKILL"), graceMs)
  }
  const deadline = setTimeout(
    () => stop(`took longer than ${options.deadlineMs / 1000} s`),
    options.deadlineMs,
  )
  try {
    const [stdout, stderr] = await Promise.all([
      collect(child.stdout, stdoutBytesMax, () => stop(`wrote more than ${stdoutBytesMax} bytes`)),
      tail(child.stderr),
      child.exited,
    ])
    if (child.exitCode !== 0) why ??= lastWords(stderr) ?? `exit code ${child.exitCode ?? child.signalCode}`
    if (why !== undefined) throw failure({ kind: "failed", words: why, stderr })
    return stdout
  } finally {
    clearTimeout(deadline)
    clearTimeout(killTimer)
  }
}

function failureOf(name: string): (why: ProgramFailure) => AppError {
  return (why) => {
    if (why.kind === "failed")
      return new AppError("unavailable", `${name} failed: ${why.words}`, { cause: new Error(why.stderr) })
    return new AppError("unavailable", `the program ${name} is not installed`, {
      hint: "run ./install.sh again, it installs what is missing",
    })
  }
}

async function collect(
  stream: ReadableStream<Uint8Array>,
  bytesMax: number,
  onTooMuch: () => void,
): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of stream) {
    size += chunk.length
    if (size > bytesMax) onTooMuch()
    else chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let kept = Buffer.alloc(0)
  for await (const chunk of stream) kept = Buffer.concat([kept, chunk]).subarray(-stderrTailBytes)
  return kept.toString("utf8")
}

/** Keeps the last lines, not only the last one: a program that ran others only reports at the end that they failed. */
function lastWords(text: string): string | undefined {
  const lines = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
  return lines.length === 0 ? undefined : lines.slice(-4).join("; ")
}
