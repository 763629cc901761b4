/** Runs the command line as a process, from the sources or, with BHATTI_BINARY, the compiled program. */

import { join } from "node:path"
/** A daemon and a key of it. */
export type Reachable = { url: string; key: string }

const root = join(import.meta.dir, "../..")

export const program: string[] = process.env.BHATTI_BINARY
  ? [process.env.BHATTI_BINARY]
  : [process.execPath, join(root, "src/main.ts")]

/** No settings of whoever runs the tests reach the program. */
export function environment(daemon?: Reachable, extra: Record<string, string> = {}): Record<string, string> {
  return {
    PATH: process.env.PATH ?? "",
    // No home at all: the runtime would make a directory that is missing.
    HOME: "/dev/null",
    TERM: "xterm",
    ...(daemon === undefined ? {} : { BHATTI_URL: daemon.url, BHATTI_TOKEN: daemon.key }),
    ...extra,
  }
}

export type Ran = { stdout: string; stderr: string; exitCode: number }

export async function bhatti(
  args: readonly string[],
  options: { daemon?: Reachable; env?: Record<string, string>; stdin?: string } = {},
): Promise<Ran> {
  const child = Bun.spawn([...program, ...args], {
    env: environment(options.daemon, options.env),
    stdin: options.stdin === undefined ? "ignore" : new TextEncoder().encode(options.stdin),
    stdout: "pipe",
    stderr: "pipe",
  })
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ])
  return { stdout, stderr, exitCode }
}

/** Waits for a condition; fails with what it waited for. */
export async function until(what: string, isTrue: () => boolean, timeoutMs = 5000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error(`still waiting for: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
