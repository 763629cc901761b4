/** The command of a request, as `core` has it. */

import type { ExecStart } from "@bhatti/contract/exec"
import type { ProcessStart } from "@bhatti/contract/guest"
import type { Keyed } from "../core/process-presets.ts"

type Asked = Pick<ExecStart, "env"> & {
  [Field in "cmd" | "cwd" | "user" | "tty"]?: ExecStart[Field] | undefined
}

export function commandOf({ cmd, env, cwd, user, tty }: Asked): Omit<ProcessStart, "onDisconnect"> {
  return {
    env,
    ...(cmd !== undefined && { argv: cmd }),
    ...(cwd !== undefined && { cwd }),
    ...(user !== undefined && { user }),
    ...(tty && {
      tty: { rows: tty.rows, cols: tty.cols, ...(tty.term && { term: tty.term }) },
    }),
  }
}

/** Returns undefined if the client sent no key. */
export function keyedOf({
  key,
  elapsed_ms: elapsedMs,
  grace_sec: graceSec,
}: Pick<ExecStart, "key" | "elapsed_ms" | "grace_sec">): Keyed | undefined {
  return key === undefined ? undefined : { key, elapsedMs, graceMs: Math.ceil(graceSec * 1000) }
}
