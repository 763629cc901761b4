/**
 * Makes one executable of one entry file: how the daemon, the command line and every platform's client are compiled
 * alike.
 */

import { mkdir, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"

export type Compilation = {
  entrypoint: string
  outfile: string
  commit: string | undefined
  /** For another platform than this one: its name for Bun, and Bun's program for it. */
  foreign?: { target: Bun.Build.CompileTarget; runtime: string }
}

/**
 * Chosen by measuring: `splitting` leaves the daemon's code unread when the CLI starts (`version` 32 -> 5 ms),
 * `bytecode` halves what is left for other commands. Source maps cost nothing until an error prints its place; names
 * stay for it.
 */
export async function compile({ entrypoint, outfile, commit, foreign }: Compilation): Promise<void> {
  const beside = join(dirname(outfile), ".making")
  await rm(beside, { recursive: true, force: true })
  await mkdir(beside, { recursive: true })
  const made = join(beside, "bhatti")
  const result = await Bun.build({
    entrypoints: [entrypoint],
    target: "bun",
    format: "esm",
    splitting: true,
    bytecode: true,
    minify: { whitespace: true, syntax: true, identifiers: false },
    sourcemap: "linked",
    define: { "process.env.BHATTI_COMMIT": JSON.stringify(commit ?? "") },
    compile: {
      outfile: made,
      // A command must not change its behaviour by files that happen to lie in the directory it is started from.
      autoloadDotenv: false,
      autoloadBunfig: false,
      // With a runtime at hand nothing is downloaded.
      ...(foreign && { target: foreign.target, executablePath: foreign.runtime }),
    },
  })
  if (!result.success) throw new AggregateError(result.logs, "bundle")
  // By rename: the running binary cannot be written to.
  await rename(made, outfile)
  await rm(beside, { recursive: true, force: true })
}

/** Returns undefined outside a git checkout, or without git. */
export function currentCommit(root: string): string | undefined {
  if (Bun.which("git") === null) return undefined
  const { exitCode, stdout } = Bun.spawnSync(
    ["git", "-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"],
    { cwd: root, stderr: "ignore" },
  )
  return exitCode === 0 ? stdout.toString().trim() : undefined
}
