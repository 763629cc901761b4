/**
 * Has the host make one of its own images while its daemon runs: the program's own `init` does it as a process apart,
 * since a build takes minutes and needs the usual modes of new files.
 */

import { AppError } from "@bhatti/contract/errors"

const deadlineMs = 1_800_000
/** Time to unmount and to remove what is half made. */
const graceMs = 20_000
const lineMax = 300
const keptLinesMax = 8

/** `program` is this one, unless a test has another. */
type Options = { dataDir: string; cacheDir: string; program?: readonly string[] }

/** `onStep` hears in words what is done. An abort ends the build and everything that it has started. */
export async function installHostImage(
  { dataDir, cacheDir, program = [process.execPath] }: Options,
  name: string,
  { signal, onStep }: { signal: AbortSignal; onStep: (words: string) => void },
): Promise<void> {
  signal.throwIfAborted()
  const words = ["init", "--data-dir", dataDir, "--cache-dir", cacheDir, "--image", name, "--image-only"]
  const child = Bun.spawn([...program, ...words], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
    // A session of its own: mmdebstrap and its programs end with it.
    detached: true,
  })
  const kill = (how: NodeJS.Signals) => {
    try {
      process.kill(-child.pid, how)
    } catch {
      // It has ended.
    }
  }
  let force: Timer | undefined
  const stop = () => {
    kill("SIGTERM")
    force ??= setTimeout(() => kill("SIGKILL"), graceMs)
  }
  const late = setTimeout(stop, deadlineMs)
  signal.addEventListener("abort", stop, { once: true })
  try {
    const last: string[] = []
    for await (const line of linesOf(child.stderr)) {
      onStep(line)
      last.push(line)
      if (last.length > keptLinesMax) last.shift()
    }
    const exitCode = await child.exited
    signal.throwIfAborted()
    if (exitCode === 0) return
    const why = reasonIn(last) ?? `exit code ${child.signalCode ?? exitCode}`
    throw new AppError("unavailable", `image "${name}" could not be made: ${why}`, {
      cause: new Error(last.join("\n")),
      hint: "the daemon's log has more of what the build printed",
      retryable: true,
    })
  } finally {
    clearTimeout(late)
    clearTimeout(force)
    signal.removeEventListener("abort", stop)
  }
}

/** A command line that fails names the reason on a line of its own, before its advice. */
function reasonIn(lines: readonly string[]): string | undefined {
  const prefix = "bhatti: "
  return lines.findLast((line) => line.startsWith(prefix))?.slice(prefix.length) ?? lines.at(-1)
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ""
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n")
    rest = (lines.pop() ?? "").slice(0, lineMax)
    for (const line of lines) if (line.trim() !== "") yield line.trim().slice(0, lineMax)
  }
  if (rest.trim() !== "") yield rest.trim()
}
