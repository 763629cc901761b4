/** Help texts, all made from the command table and the commands' definitions. */

import { commonOptions, optionFlag } from "./arguments.ts"
import type { Command, CommandEntry, Option, Options } from "./command.ts"
import { alignColumns } from "./output.ts"

export function overviewHelp(commands: readonly CommandEntry[]): string {
  const sections = [...new Set(commands.map((entry) => entry.section))]
  const blocks = sections.map((section) => {
    const rows = commands.filter((entry) => entry.section === section)
    return `${section}:\n${commandLines(rows)}`
  })
  return [
    "bhatti: isolated Linux sandboxes, each a real virtual machine",
    "Usage: bhatti COMMAND [options]",
    ...blocks,
    `Options of every command:\n${optionLines(commonOptions)}`,
    "Examples:\n  bhatti create --name dev\n  bhatti exec dev -- uname -a\n  bhatti destroy dev",
    "More about one command: bhatti help COMMAND",
  ].join("\n\n")
}

export function groupHelp(commands: readonly CommandEntry[], group: string): string {
  const rows = commands.filter((entry) => entry.name.startsWith(`${group} `))
  return `Usage: bhatti ${group} COMMAND [options]\n\nCommands:\n${commandLines(rows)}`
}

export function commandHelp(entry: CommandEntry, command: Command): string {
  const own = command.options ?? {}
  return [
    entry.summary,
    `Usage: ${usageLine(entry, command)}`,
    ...(entry.aliases === undefined
      ? []
      : [`Also: ${entry.aliases.map((alias) => `bhatti ${alias}`).join(", ")}`]),
    ...(command.description === undefined ? [] : [command.description]),
    ...(Object.keys(own).length === 0 ? [] : [`Options:\n${optionLines(own)}`]),
    `Options of every command:\n${optionLines(commonOptions)}`,
    `Examples:\n${command.examples.map((example) => `  ${example}`).join("\n")}`,
  ].join("\n\n")
}

export function usageLine(entry: CommandEntry, command: Command): string {
  const words = ["bhatti", entry.name, "[options]", ...(command.args ?? []).map((name) => name.toUpperCase())]
  words.push(...(command.optionalArgs ?? []).map((name) => `[${name.toUpperCase()}]`))
  if (command.rest?.kind === "names")
    words.push(command.rest.usage ?? `${command.rest.name.toUpperCase()}...`)
  if (command.rest?.kind === "command") {
    const program = `${command.rest.name.toUpperCase()} [ARG...]`
    words.push(command.rest.least === 0 ? `[[--] ${program}]` : `[--] ${program}`)
  }
  if (command.rest?.kind === "behind") words.push(`[-- ${command.rest.name.toUpperCase()} [ARG...]]`)
  return words.join(" ")
}

/** `-e, --env K=V,...` and a summary, for every option. */
export function describeOptions(options: Options): { flags: string; summary: string }[] {
  return Object.entries(options).map(([name, option]) => ({
    flags: [
      ...(option.short === undefined ? [] : [`-${option.short}, `]),
      optionFlag(name),
      ...(option.type === "flag" ? [] : [` ${option.type === "switch" ? "[on|off]" : option.value}`]),
    ].join(""),
    summary: option.summary + remarkOf(option),
  }))
}

function remarkOf(option: Option): string {
  if ("isRequired" in option) return " (required)"
  return option.fallback === undefined ? "" : ` (default ${option.fallback})`
}

function commandLines(entries: readonly CommandEntry[]): string {
  const rows = entries.map((entry) => [[entry.name, ...(entry.aliases ?? [])].join(", "), entry.summary])
  return indent(alignColumns(rows))
}

function optionLines(options: Options): string {
  const rows = describeOptions(options).map(({ flags, summary }) => [
    flags.startsWith("--") ? `    ${flags}` : flags,
    summary,
  ])
  return indent(alignColumns(rows))
}

function indent(lines: readonly string[]): string {
  return lines.map((line) => `  ${line}`).join("\n")
}
