/**
 * What a command is: its arguments and options as data, from which parsing, `--help` and docs/cli.md are made, and what it does.
 * `command` talks to the daemon through the client; `hostCommand` works on this host without it.
 */

import type { Client } from "../client/client.ts"
import type { AppError } from "../contract/errors.ts"
import type { Operator } from "./operator.ts"
import type { Output } from "./output.ts"
import type { Settings } from "./settings.ts"

type OptionText = {
  /** One letter, for `-x`. */
  short?: string
  /** What it does, for help; no full stop. */
  summary: string
  /** What holds without it, for help. */
  fallback?: string | number
}

export type Option =
  | (OptionText & { type: "flag" })
  | (OptionText & { type: "text"; value: string; isRequired?: true })
  | (OptionText & { type: "integer"; value: string; min: number; max: number })
  | (OptionText & { type: "seconds"; value: string; max: number })
  /** MiB, written as a plain number of MB or with a unit: `512M`, `2G`. */
  | (OptionText & { type: "size"; value: string; min: number; max: number })
  /** `K=V,K2=V2`, may be repeated. */
  | (OptionText & { type: "pairs"; value: string })

export type Options = Readonly<Record<string, Option>>

type OptionValue<O extends Option> = O["type"] extends "flag"
  ? boolean
  : O["type"] extends "pairs"
    ? Record<string, string> | undefined
    : O["type"] extends "text"
      ? O extends { isRequired: true }
        ? string
        : string | undefined
      : number | undefined

export type OptionValues<O extends Options> = { [Name in keyof O]: OptionValue<O[Name]> }

/** The last argument: one or more names, or a program with its own arguments, which are not ours to read. */
export type Rest = { name: string; kind: "names" | "command" }

type Run<Name extends string, O extends Options, Extra> = (
  context: {
    args: Record<Name, string>
    rest: string[]
    options: OptionValues<O>
    isJson: boolean
    out: Output
  } & Extra,
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands have no exit code of their own.
) => Promise<number | void>

type Shape<Name extends string, O extends Options> = {
  args?: readonly Name[]
  rest?: Rest
  options?: O
  /** Paragraphs below the summary. */
  description?: string
  examples: readonly string[]
}

export type DaemonContext = {
  client: Client
  settings: Settings
  /** Prints an error as every command does, for one that goes on or has an exit code of its own. */
  report: (error: AppError) => Promise<void>
}
export type HostContext = { operator: Operator; settings: () => Promise<Settings> }

export type DaemonCommand = Shape<string, Options> & {
  kind: "daemon"
  run: Run<string, Options, DaemonContext>
}
export type HostCommand = Shape<string, Options> & { kind: "host"; run: Run<string, Options, HostContext> }
export type Command = DaemonCommand | HostCommand

export function command<const Name extends string = never, const O extends Options = Record<never, Option>>(
  definition: Shape<Name, O> & { run: Run<Name, O, DaemonContext> },
): DaemonCommand {
  // The parser makes `args` and `options` from this same definition, so the precise types inside `run` are true.
  return { kind: "daemon", ...definition, run: definition.run as unknown as DaemonCommand["run"] }
}

export function hostCommand<
  const Name extends string = never,
  const O extends Options = Record<never, Option>,
>(definition: Shape<Name, O> & { run: Run<Name, O, HostContext> }): HostCommand {
  return { kind: "host", ...definition, run: definition.run as unknown as HostCommand["run"] }
}
