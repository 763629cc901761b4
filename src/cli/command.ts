/**
 * A command: its arguments and options as data, from which parsing, `--help` and docs/cli.md are made, and its
 * action. `command` talks to the daemon through the client; `hostCommand` works on this host without it.
 */

import type { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import type { Operator } from "./operator.ts"
import type { Output } from "./output.ts"
import type { GivenSettings, Settings } from "./settings.ts"

type OptionText = {
  /** A single letter, for `-x`. */
  short?: string
  /** An alternative letter, which help does not show. */
  otherShort?: string
  /** Summary for help; no full stop. */
  summary: string
  /** Default value, for help. */
  fallback?: string | number
}

export type Option =
  | (OptionText & { type: "flag" })
  /** `--x` and `--x on` switch it on, `--x off` switches it off; if omitted, nothing changes. */
  | (OptionText & { type: "switch" })
  | (OptionText & { type: "text"; value: string; isRequired?: true })
  /** May be repeated; the values are kept unchanged. */
  | (OptionText & { type: "list"; value: string })
  | (OptionText & { type: "choice"; value: string; choices: readonly string[] })
  | (OptionText & { type: "integer"; value: string; min: number; max: number; isRequired?: true })
  /** Seconds, written as a plain number or with a unit: `90s`, `5m`. */
  | (OptionText & { type: "seconds"; value: string; max: number })
  /** MiB, written as a plain number of MB or with a unit: `512M`, `2G`. */
  | (OptionText & { type: "size"; value: string; min: number; max: number })
  /** `K=V,K2=V2`, may be repeated; `pairs.ts` defines which commas separate. */
  | (OptionText & { type: "labels" | "variables"; value: string })

export type Options = Readonly<Record<string, Option>>

type OptionValue<O extends Option> = O["type"] extends "flag"
  ? boolean
  : O["type"] extends "list"
    ? string[]
    : ScalarValue<O> | (O extends { isRequired: true } ? never : undefined)

type ScalarValue<O extends Option> = O["type"] extends "labels" | "variables"
  ? Record<string, string>
  : O["type"] extends "switch"
    ? boolean
    : O extends { type: "choice"; choices: readonly (infer Choice)[] }
      ? Choice
      : O["type"] extends "text"
        ? string
        : number

export type OptionValues<O extends Options> = { [Name in keyof O]: OptionValue<O[Name]> }

/**
 * The last argument: one or more names, or a program with its own arguments, which are not parsed. `behind`: such a
 * program, or none, only behind `--`.
 */
export type Rest = {
  name: string
  kind: "names" | "command" | "behind"
  /** Minimum number of values, if not one. */
  least?: number
  /** For the usage line, where `NAME...` says too little. */
  usage?: string
}

type Words<Name extends string, Extra extends string, O extends Options> = {
  args: Record<Name, string> & Record<Extra, string | undefined>
  rest: string[]
  options: OptionValues<O>
}

type Run<Name extends string, Extra extends string, O extends Options, Context> = (
  context: Words<Name, Extra, O> & { isJson: boolean; out: Output } & Context,
  // biome-ignore lint/suspicious/noConfusingVoidType: most commands have no exit code of their own.
) => Promise<number | void>

type Shape<Name extends string, Extra extends string, O extends Options> = {
  args?: readonly Name[]
  /** Optional arguments, after the required ones. */
  optionalArgs?: readonly Extra[]
  /** The argument that is read from standard input if omitted. It is a value and may be empty. */
  inputArg?: Extra
  rest?: Rest
  options?: O
  /** Returns the problem with a combination whose parts are valid on their own. */
  refuse?: (given: Words<Name, Extra, O>) => string | undefined
  /** Paragraphs below the summary. */
  description?: string
  examples: readonly string[]
}

export type DaemonContext = {
  client: Client
  settings: Settings
  /** Prints an error as every command does, for commands that continue afterwards or have their own exit code. */
  report: (error: AppError) => Promise<void>
}
export type HostContext = {
  operator: Operator
  /** All commands, for those that tell about the others. */
  table: CommandTable
  settings: () => Promise<Settings>
  /** `--url`, `--token` and `--ca` as they were given. */
  given: GivenSettings
}

/** Without the precise names, as the parser and the help use it. */
type AnyShape = Omit<Shape<string, string, Options>, "refuse"> & {
  refuse?: (given: Words<never, string, Options>) => string | undefined
}
export type DaemonCommand = AnyShape & { kind: "daemon"; run: Run<never, string, Options, DaemonContext> }
export type HostCommand = AnyShape & { kind: "host"; run: Run<never, string, Options, HostContext> }
export type Command = DaemonCommand | HostCommand

/** A line of the table in `commands/index.ts`. */
export type CommandEntry = {
  /** A single word, or two for a command of a group: `user create`. */
  name: string
  aliases?: readonly string[]
  summary: string
  section:
    | "Sandboxes"
    | "Files"
    | "Published ports"
    | "Snapshots"
    | "Images"
    | "Secrets"
    | "Keys"
    | "Agents"
    | "This program"
    | "Operator (on the host itself)"
  load: () => Promise<Command>
}

/** Hidden commands are for programs: they are in no help and no completion. */
export type CommandTable = { shown: readonly CommandEntry[]; hidden: readonly CommandEntry[] }

type Definition<Name extends string, Extra extends string, O extends Options, Context> = Shape<
  Name,
  Extra,
  O
> & { run: Run<Name, Extra, O, Context> }

export function command<
  const Name extends string = never,
  const Extra extends string = never,
  const O extends Options = Record<never, Option>,
>(definition: Definition<Name, Extra, O, DaemonContext>): DaemonCommand {
  // The parser makes `args` and `options` from this same definition, so the precise types inside `run` are true.
  return { kind: "daemon", ...(definition as unknown as Omit<DaemonCommand, "kind">) }
}

export function hostCommand<
  const Name extends string = never,
  const Extra extends string = never,
  const O extends Options = Record<never, Option>,
>(definition: Definition<Name, Extra, O, HostContext>): HostCommand {
  return { kind: "host", ...(definition as unknown as Omit<HostCommand, "kind">) }
}
