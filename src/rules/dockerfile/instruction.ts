/** A Dockerfile that has been read: its stages, and in each its instructions with what can be known of them alone. */

import type { Heredoc } from "./lines.ts"

export type Pairs = readonly { name: string; value: string }[]

export type Mount =
  | {
      type: "secret"
      id: string
      target: string | null
      /** A variable that holds it instead of a file. */
      env: string | null
      isRequired: boolean
      mode: string
      uid: number
      gid: number
    }
  | { type: "cache" | "tmpfs"; target: string }

/** A command as an instruction writes it: for the shell, or as a list of words. */
export type Command = { form: "shell"; text: string } | { form: "exec"; words: string[] }

export type Instruction = { line: number; text: string } & (
  | { kind: "run"; command: Command; heredocs: Heredoc[]; mounts: Mount[] }
  | {
      kind: "copy"
      isAdd: boolean
      sources: string[]
      target: string
      heredocs: Heredoc[]
      from: string | null
      chown: string | null
      chmod: string | null
    }
  | { kind: "env" | "label"; pairs: Pairs; isRaw: boolean }
  | { kind: "arg"; args: readonly { name: string; value: string | null }[] }
  | { kind: "workdir" | "user" | "stopsignal"; value: string }
  | { kind: "expose" | "volume"; values: string[] }
  | { kind: "cmd" | "entrypoint"; command: Command }
  | { kind: "shell"; words: string[] }
  | { kind: "healthcheck" }
)

export type Stage = {
  line: number
  text: string
  /** As it is written, with its variables. */
  base: string
  name: string | null
  platform: string | null
  instructions: Instruction[]
}

export type Dockerfile = {
  escapeChar: string
  /** Before the first stage: for the references of stages alone. */
  args: { line: number; name: string; value: string | null }[]
  stages: Stage[]
}
