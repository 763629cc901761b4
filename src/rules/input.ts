/** Rules of input, for whatever surface it comes through. The schemas of the API have the same patterns and numbers. */

import { AppError } from "@bhatti/contract/errors"
import { ImageId, SandboxId } from "@bhatti/contract/ids"
import { TtlEnd } from "@bhatti/contract/lifetime"
import { limits, reservedAliases } from "@bhatti/contract/limits"

/** The part of a sandbox that a user chooses; fields left out are not checked. */
export type ChosenInput = {
  name?: string | undefined
  image?: string | undefined
  cpus?: number | undefined
  memoryMib?: number | undefined
  diskMib?: number | undefined
  env?: Record<string, string> | undefined
  secrets?: readonly string[] | undefined
  labels?: Record<string, string> | undefined
  warmAfterSec?: number | null | undefined
  coldAfterSec?: number | null | undefined
  ttlSec?: number | null | undefined
  onTtl?: string | undefined
  description?: string | null | undefined
  init?: string | null | undefined
  files?: readonly unknown[] | undefined
  startCommand?: string | undefined
  readyCommand?: string | undefined
}

export function checkInput(input: ChosenInput): void {
  const { name, image, env = {}, labels = {}, secrets = [], description, init, files = [] } = input
  if (name !== undefined) checkSandboxName(name)
  if (image !== undefined) checkText(image, limits.imageNamePattern, limits.imageNameRule)
  checkWhole("cpus", input.cpus, 1, limits.cpusMax)
  checkWhole("memory in MiB", input.memoryMib, limits.memoryMibMin, limits.memoryMibMax)
  checkWhole("size of the disk in MiB", input.diskMib, limits.diskMibDefault, limits.diskMibMax)
  checkRange("time until it is paused, in seconds,", input.warmAfterSec, 0, limits.thermalSecMax)
  checkRange("time until it is saved, in seconds,", input.coldAfterSec, 0, limits.thermalSecMax)
  checkRange("time to live, in seconds,", input.ttlSec, 0, limits.ttlSecMax)
  if (input.onTtl !== undefined && !TtlEnd.safeParse(input.onTtl).success)
    throw new AppError("invalid", "at the end of its time to live a sandbox is: pause, destroy or keep")
  checkRange("number of secrets", secrets.length, 0, limits.secretsMax)
  checkRange("number of files", files.length, 0, limits.createFilesMax)
  if (typeof init === "string")
    checkRange("length of the init script", init.length, 1, limits.initScriptBytesMax)
  checkCommandLine("start command", input.startCommand)
  checkCommandLine("ready command", input.readyCommand)
  if (input.readyCommand !== undefined && input.startCommand === undefined)
    throw new AppError("invalid", "a ready command is given without a start command")
  if (typeof description === "string") {
    checkRange("length of the description", description.length, 1, limits.descriptionMax)
    checkText(description, limits.descriptionPattern, limits.descriptionRule)
  }
  checkEnv(env)
  checkLabels(labels)
}

/** Checks a new image's name. */
export function checkImageName(name: string): void {
  checkText(name, limits.imageNamePattern, limits.imageNameRule)
  if (ImageId.safeParse(name).success || name.startsWith("sha256:"))
    throw new AppError("invalid", limits.imageNameIsIdRule)
}

function checkCommandLine(what: string, command: string | undefined): void {
  if (command === undefined) return
  checkRange(`length of the ${what}`, command.length, 1, limits.startCommandMax)
  if (command.includes("\0")) throw new AppError("invalid", `the ${what} cannot hold a NUL`)
}

/** Checks how many sandboxes one request asks for. */
export function checkCount(count: number): void {
  checkWhole("number of sandboxes", count, 1, limits.createCountMax)
}

export function checkSandboxName(name: string): void {
  checkText(name, limits.sandboxNamePattern, `a sandbox name has ${limits.sandboxNameRule}`)
  if (SandboxId.safeParse(name).success) throw new AppError("invalid", limits.sandboxNameIsIdRule)
}

export function checkKeyName(name: string): void {
  checkText(name, limits.keyNamePattern, limits.keyNameRule)
}

export function checkSnapshotName(name: string): void {
  checkText(name, limits.sandboxNamePattern, `a snapshot name has ${limits.sandboxNameRule}`)
}

/** The name PORT-ID of a published port, which is no alias. */
export const portName = /^([1-9]\d{0,4})-([0-9a-f]{16})$/

export function checkPublished({
  port,
  alias,
}: {
  port?: number | undefined
  alias?: string | undefined
}): void {
  if (port !== undefined) checkWhole("port", port, 1, limits.portMax)
  if (alias === undefined) return
  checkText(alias, limits.aliasPattern, limits.aliasRule)
  if (reservedAliases.includes(alias) || portName.test(alias))
    throw new AppError("invalid", "that alias is reserved")
}

export function checkSecret({ name, value }: { name: string; value: string }): void {
  checkText(name, limits.variableNamePattern, limits.secretNameRule)
  checkRange("length of a secret's value", value.length, 1, limits.secretBytesMax)
  if (value.includes("\0")) throw new AppError("invalid", "a secret cannot hold a NUL")
}

/** The part of a command that a user chooses. */
export type ChosenCommand = {
  argv?: readonly string[] | undefined
  env?: Record<string, string> | undefined
  cwd?: string | undefined
  user?: string | undefined
  tty?: { rows: number; cols: number; term?: string | undefined } | undefined
  timeoutSec?: number | undefined
}

export function checkCommand({ argv, env = {}, cwd, user, tty, timeoutSec }: ChosenCommand): void {
  if (argv) checkArguments(argv)
  checkEnv(env)
  if (cwd !== undefined) checkRange("length of the directory's path", cwd.length, 1, limits.guestPathMax)
  if (user !== undefined) checkText(user, limits.guestUserPattern, limits.guestUserRule)
  if (tty) checkTerminal(tty)
  if (timeoutSec === undefined || (timeoutSec > 0 && timeoutSec <= limits.execTimeoutSecMax)) return
  throw new AppError(
    "invalid",
    `the timeout must be more than 0, and at most ${limits.execTimeoutSecMax} seconds`,
  )
}

function checkArguments(argv: readonly string[]): void {
  checkRange("number of arguments", argv.length, 1, limits.execArgsMax)
  if (argv[0] === "") throw new AppError("invalid", "the program's name is empty")
  if (argv.some((argument) => argument.includes("\0")))
    throw new AppError("invalid", "an argument cannot hold a NUL")
  const bytes = argv.reduce((sum, argument) => sum + argument.length + 1, 0)
  checkRange("size of a command in bytes", bytes, 0, limits.execRequestBytesMax)
}

export function checkTerminal({ rows, cols, term = "" }: NonNullable<ChosenCommand["tty"]>): void {
  checkWhole("number of rows", rows, 1, limits.terminalSideMax)
  checkWhole("number of columns", cols, 1, limits.terminalSideMax)
  checkRange("length of the terminal's name", term.length, 0, limits.terminalNameMax)
}

/** Checks the path of a file in the guest. */
export function checkGuestPath(path: string): void {
  checkRange("length of a path", path.length, 1, limits.guestPathMax)
  if (path.includes("\0")) throw new AppError("invalid", "a path cannot hold a NUL")
}

function checkEnv(env: Record<string, string>): void {
  const variables = Object.entries(env)
  for (const [name, value] of variables) {
    checkText(name, limits.variableNamePattern, limits.variableNameRule)
    checkRange(`length of the variable ${name}`, value.length, 0, limits.envValueMax)
    if (value.includes("\0")) throw new AppError("invalid", "a variable cannot hold a NUL")
  }
  checkRange("number of variables", variables.length, 0, limits.envVarsMax)
  const bytes = variables.reduce((sum, [name, value]) => sum + name.length + value.length + 2, 0)
  checkRange("size of all variables", bytes, 0, limits.envBytesMax)
}

function checkLabels(labels: Record<string, string>): void {
  for (const [key, value] of Object.entries(labels)) {
    checkText(key, limits.labelKeyPattern, limits.labelKeyRule)
    if (key.startsWith(limits.labelReservedPrefix)) throw new AppError("invalid", limits.labelReservedRule)
    checkText(value, limits.labelValuePattern, limits.labelValueRule)
  }
  checkRange("number of labels", Object.keys(labels).length, 0, limits.labelsMax)
}

function checkText(text: string, pattern: RegExp, rule: string): void {
  if (!pattern.test(text)) throw new AppError("invalid", rule)
}

function checkWhole(what: string, value: number | undefined, min: number, max: number): void {
  checkRange(what, value, min, max)
  if (value !== undefined && !Number.isInteger(value))
    throw new AppError("invalid", `the ${what} must be a whole number`)
}

function checkRange(what: string, value: number | null | undefined, min: number, max: number): void {
  if (value === null || value === undefined || (value >= min && value <= max)) return
  throw new AppError("invalid", `the ${what} must be ${min} to ${max}`)
}
