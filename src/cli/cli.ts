/**
 * The command line: finds the command, parses its arguments, runs it, and turns every error into a message and an
 * exit code. Only this file ends the process. Exit codes: 0 done; 1 error; 2 wrong usage, including requests that
 * the daemon calls invalid; 141 the reader of our output has gone. `exec` adds its own.
 */

import { AppError } from "@bhatti/contract/errors"
import { suggest } from "../lib/suggest.ts"
import { adviceFor } from "./advice.ts"
import { type Parsed, parseArguments } from "./arguments.ts"
import type { Command } from "./command.ts"
import { table } from "./commands/index.ts"
import { exitBrokenPipe, exitCodeOf, exitFailed, exitUsage } from "./exit-codes.ts"
import { type Found, findCommand } from "./find-command.ts"
import { withLostNotice } from "./lost-notice.ts"
import type { Operator } from "./operator.ts"
import { isBrokenPipe, Output } from "./output.ts"
import {
  type ClientFile,
  clientKeys,
  loadSettings,
  readClientFile,
  type Settings,
  unknownKeys,
} from "./settings.ts"
import { connectTo } from "./transport.ts"
import { WrongUsage } from "./wrong-usage.ts"

export async function main(argv: readonly string[], operator: Operator): Promise<never> {
  const surroundings = {
    operator,
    out: new Output(),
    isJson: asksForJson(argv),
    clientFile: readClientFile(process.env),
  }
  process.exit(await runGuarded(argv, surroundings))
}

type Surroundings = {
  operator: Operator
  out: Output
  /** Output settings taken from the command line before it is parsed as a command's. */
  isJson: boolean
  clientFile: Promise<ClientFile>
}

function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--")
  return argv.slice(0, end < 0 ? argv.length : end).includes("--json")
}

async function runGuarded(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  try {
    return await runCommandLine(argv, surroundings)
  } catch (error) {
    if (isBrokenPipe(error)) return exitBrokenPipe
    return reportLast(surroundings, error)
  }
}

async function runCommandLine(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const { out, isJson } = surroundings
  let help = "bhatti --help"
  try {
    const found = findCommand(table, argv)
    if (found.kind !== "command") return await showOverview(found, out)
    help = `bhatti ${found.entry.name} --help`
    const command = await found.entry.load()
    const parsed = parseArguments(command, found.argv)
    if (!parsed.common.help) return await run(command, parsed, surroundings)
    const { commandHelp } = await import("./help.ts")
    await out.result(commandHelp(found.entry, command))
    return 0
  } catch (error) {
    if (!(error instanceof WrongUsage)) throw error
    await report({ out, isJson }, new WrongUsage(error.message, { hint: error.hint ?? help }))
    return exitUsage
  }
}

async function run(
  command: Command,
  parsed: Parsed,
  { operator, out, clientFile }: Surroundings,
): Promise<number> {
  const { args, rest, options, common } = parsed
  if (!common.json) await tellUnknownKeys(out, clientFile)
  const settings = (): Promise<Settings> => loadSettings(common, process.env, clientFile)
  const context = { args, rest, options: options as never, isJson: common.json, out }
  if (command.kind === "host")
    return (await command.run({ ...context, operator, table, settings, given: common })) ?? 0
  const found = await settings()
  const client = connectTo(found, withLostNotice(out), ({ text }) => {
    void out.talk(`bhatti: ${text}; bhatti edit NAME --ttl TIME gives it more`)
  })
  const reportKnown = (error: AppError) => report({ out, isJson: common.json }, withKeyHint(error, found))
  try {
    return (await command.run({ ...context, client, settings: found, report: reportKnown })) ?? 0
  } catch (error) {
    if (!(error instanceof AppError) || error instanceof WrongUsage) throw error
    await reportKnown(error)
    return exitCodeOf(error)
  }
}

/** A misspelt key must not be ignored silently. */
async function tellUnknownKeys(out: Output, clientFile: Promise<ClientFile>): Promise<void> {
  // Other errors of the file are reported by the code that needs it.
  const keys = await unknownKeys(clientFile).catch(() => [])
  for (const key of keys) {
    const meant = suggest(key, clientKeys)
    const hint = meant === undefined ? "" : `; did you mean ${meant}?`
    await out.talk(`bhatti: ${(await clientFile).path} has an unknown key: ${oneLine(key)}${hint}`)
  }
}

async function showOverview(found: Exclude<Found, { kind: "command" }>, out: Output): Promise<number> {
  const { overviewHelp, groupHelp } = await import("./help.ts")
  if (found.kind === "overview") {
    await out.result(overviewHelp(table.shown))
    return 0
  }
  if (found.isAskedFor) {
    await out.result(groupHelp(table.shown, found.name))
    return 0
  }
  await out.talk(groupHelp(table.shown, found.name))
  return exitUsage
}

/** The daemon cannot know where the wrong key came from. */
function withKeyHint(error: AppError, settings: Settings): AppError {
  if (error.code !== "unauthenticated") return error
  const hint =
    settings.tokenSource === undefined
      ? "no API key is set: bhatti setup   (or set BHATTI_TOKEN)"
      : `the key came from ${settings.tokenSource}; the operator makes another with: sudo bhatti user rotate-key NAME`
  return error.but({ hint })
}

/** As text, or with --json in the form of the API's errors: one line each. */
async function report({ out, isJson }: { out: Output; isJson: boolean }, error: AppError): Promise<void> {
  const hint = adviceFor(error)
  if (isJson) {
    const { code, message, reason, retryable } = error
    const told = { error: message, code, message, hint: hint ?? null, ...(reason && { reason }), retryable }
    return await out.talk(JSON.stringify(told))
  }
  await out.talk(`bhatti: ${oneLine(error.message)}`)
  if (hint === undefined) return
  const isCommand = /^(sudo|bhatti) /.test(hint)
  await out.talk(`  ${isCommand ? "try: " : ""}${oneLine(hint)}`)
}

/** Reports an error that no command has handled. Gives up silently if standard error is gone too. */
async function reportLast({ out, isJson }: Surroundings, error: unknown): Promise<number> {
  try {
    if (error instanceof AppError) {
      await report({ out, isJson }, error)
      return exitCodeOf(error)
    }
    const words = `this is a bug in bhatti: ${error instanceof Error ? error.stack : String(error)}`
    if (isJson) await report({ out, isJson }, new AppError("internal", words))
    else await out.talk(`bhatti: ${words}`)
  } catch (lost) {
    if (!isBrokenPipe(lost) && !(lost instanceof AppError)) throw lost
  }
  return exitFailed
}

/** A message may quote what a guest or another program chose; it must not move the cursor or fake a second line. */
function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, " ").replace(/\p{Cc}/gu, "?")
}
