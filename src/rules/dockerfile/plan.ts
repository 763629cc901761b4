/**
 * From a Dockerfile, build arguments and the configurations of its images: what is done in which order, with which
 * variables, and the configuration that results. Nothing has run yet, and all that can be wrong is found here.
 */

import type { ImageConfig } from "@bhatti/contract/image-config"
import type { Command, Dockerfile, Instruction, Mount, Stage } from "./instruction.ts"
import type { Heredoc } from "./lines.ts"
import { DockerfileError } from "./refusal.ts"
import { BadWord, expand, expandBody, type Variables } from "./words.ts"

export type BaseOf = { kind: "scratch" } | { kind: "stage"; index: number } | { kind: "image"; name: string }

/** A file of the text itself. */
export type Inline = { name: string; text: string }

type About = { line: number; text: string }
export type RunStep = About & {
  kind: "run"
  argv: string[]
  /** A script to run instead, which begins with `#!`. */
  script: string | null
  env: Record<string, string>
  user: string
  cwd: string
  mounts: Mount[]
}
export type CopyStep = About & {
  kind: "copy"
  isAdd: boolean
  sources: string[]
  inline: Inline[]
  /** An absolute path; with a slash at its end it is a directory. */
  target: string
  from: BaseOf | null
  chown: string | null
  chmod: number | null
}
export type WorkdirStep = About & { kind: "workdir"; path: string }
export type Step = RunStep | CopyStep | WorkdirStep

export type StagePlan = { steps: Step[]; config: ImageConfig; ignored: string[] }

export type Arguments = Readonly<Record<string, string>>

const platform = "linux/amd64"
/** As BuildKit gives them to stages that declare them. */
const platformArguments = ["TARGET", "BUILD"].flatMap((side) => [
  [`${side}PLATFORM`, platform],
  [`${side}OS`, "linux"],
  [`${side}ARCH`, "amd64"],
  [`${side}VARIANT`, ""],
])
/** Given to every RUN without being declared, and without a place in keys. */
const proxyArguments = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"]
const shellDefault = ["/bin/sh", "-c"]

export const emptyConfig: ImageConfig = {
  ...{ user: "", workdir: "", env: {}, entrypoint: [], cmd: [], ports: [], labels: {} },
}

/** Build arguments that no ARG takes. */
export function unusedArguments({ args, stages }: Dockerfile, given: Arguments): string[] {
  const declared = new Set([
    ...args.map(({ name }) => name),
    ...stages.flatMap(({ instructions }) =>
      instructions.flatMap((one) => (one.kind === "arg" ? one.args.map(({ name }) => name) : [])),
    ),
    ...proxyArguments,
    ...proxyArguments.map((name) => name.toLowerCase()),
  ])
  return Object.keys(given).filter((name) => !declared.has(name))
}

/** Build arguments that name a proxy, which every RUN gets. */
export function proxyOf(given: Arguments): Record<string, string> {
  const names = new Set([...proxyArguments, ...proxyArguments.map((name) => name.toLowerCase())])
  return Object.fromEntries(Object.entries(given).filter(([name]) => names.has(name)))
}

function globalVariables({ args, escapeChar }: Dockerfile, given: Arguments): Variables {
  const variables = new Map(platformArguments.map(([name = "", value = ""]) => [name, value]))
  for (const { name, value, line } of args) {
    const own = value === null ? undefined : withLine(line, () => expand(value, { variables, escapeChar }))
    const chosen = given[name] ?? own
    if (chosen !== undefined) variables.set(name, chosen)
  }
  return variables
}

/** The base of every stage. */
export function basesOf(file: Dockerfile, given: Arguments): BaseOf[] {
  const variables = globalVariables(file, given)
  return file.stages.map(({ base, line, platform: wanted }, index) =>
    withLine(line, () => {
      const { escapeChar } = file
      const name = expand(base, { variables, escapeChar })
      if (name === "") throw new BadWord(`FROM ${base} is empty`)
      const asked = wanted === null ? platform : expand(wanted, { variables, escapeChar })
      if (!["", platform, "linux/x86_64"].includes(asked))
        throw new BadWord(`sandboxes are ${platform}, so FROM --platform=${asked} is not supported`)
      return baseOf(file.stages.slice(0, index), name)
    }),
  )
}

function baseOf(before: readonly Stage[], name: string): BaseOf {
  if (name === "scratch") return { kind: "scratch" }
  const index = before.findLastIndex((stage) => stage.name === name.toLowerCase())
  return index >= 0 ? { kind: "stage", index } : { kind: "image", name }
}

/** The stage that a build ends with. */
export function targetOf({ stages }: Dockerfile, target: string | null): number {
  if (target === null) return stages.length - 1
  const named = stages.findIndex(({ name }) => name === target.toLowerCase())
  if (named >= 0) return named
  if (/^\d+$/.test(target) && Number(target) < stages.length) return Number(target)
  throw new DockerfileError(stages[0]?.line ?? 1, `there is no stage "${target}"`)
}

export function planStage(
  file: Dockerfile,
  index: number,
  { args, base }: { args: Arguments; base: ImageConfig },
): StagePlan {
  const stage = file.stages[index]
  if (!stage) throw new Error(`there is no stage ${index}`)
  const planner = new Planner(file, index, { args, base })
  for (const instruction of stage.instructions) withLine(instruction.line, () => planner.take(instruction))
  return planner.plan()
}

class Planner {
  readonly #file: Dockerfile
  readonly #index: number
  readonly #given: Arguments
  readonly #global: Variables
  readonly #args = new Map<string, string>()
  readonly #config: ImageConfig
  readonly #steps: Step[] = []
  readonly #ignored: string[] = []
  #shell = shellDefault
  #hasCmd = false

  constructor(file: Dockerfile, index: number, { args, base }: { args: Arguments; base: ImageConfig }) {
    this.#file = file
    this.#index = index
    this.#given = args
    this.#global = globalVariables(file, args)
    this.#config = structuredClone(base)
  }

  plan(): StagePlan {
    return { steps: this.#steps, config: this.#config, ignored: this.#ignored }
  }

  take(one: Instruction): void {
    const config = this.#config
    switch (one.kind) {
      case "run":
        return void this.#steps.push(this.#run(one))
      case "copy":
        return void this.#steps.push(this.#copy(one))
      case "env":
      case "label": {
        // All of an instruction's values see the variables as they were before it.
        const values = one.pairs.map(({ name, value }) => [
          this.#expand(name),
          one.isRaw ? value : this.#expand(value),
        ])
        Object.assign(one.kind === "env" ? config.env : config.labels, Object.fromEntries(values))
        return
      }
      case "arg":
        for (const { name, value } of one.args) this.#declare(name, value)
        return
      case "workdir":
        config.workdir = absolute(config.workdir, this.#expand(one.value))
        return void this.#steps.push({
          ...{ line: one.line, text: one.text, kind: "workdir", path: config.workdir },
        })
      case "user":
        config.user = this.#expand(one.value)
        return
      case "expose":
        config.ports = [
          ...new Set([...config.ports, ...one.values.flatMap((port) => this.#ports(port))]),
        ].sort((a, b) => a - b)
        return
      case "entrypoint":
        config.entrypoint = this.#words(one.command)
        if (!this.#hasCmd) config.cmd = []
        return
      case "cmd":
        config.cmd = this.#words(one.command)
        this.#hasCmd = true
        return
      case "shell":
        this.#shell = one.words
        return
      case "stopsignal":
      case "volume":
      case "healthcheck":
        this.#ignored.push(`line ${one.line}: ${one.kind.toUpperCase()} is ignored: sandboxes have none`)
    }
  }

  #expand(text: string): string {
    return expand(text, { variables: this.#variables(), escapeChar: this.#file.escapeChar })
  }

  #variables(): Variables {
    return new Map([...this.#args, ...Object.entries(this.#config.env)])
  }

  #declare(name: string, value: string | null): void {
    const own = value === null ? this.#global.get(name) : this.#expand(value)
    const chosen = this.#given[name] ?? own
    if (chosen !== undefined) this.#args.set(name, chosen)
  }

  #words(command: Command): string[] {
    return command.form === "exec" ? command.words : [...this.#shell, command.text]
  }

  #run({ line, text, command, heredocs, mounts }: Extract<Instruction, { kind: "run" }>): RunStep {
    const { user, workdir, env } = this.#config
    const [only] = heredocs
    const isAlone = command.form === "shell" && /^\d*<<-?["']?[^<"'\s]+["']?$/.test(command.text.trim())
    const script = isAlone && only?.body.startsWith("#!") ? only.body : null
    const argv = isAlone && only ? [...this.#shell, only.body] : this.#words(withBodies(command, heredocs))
    return {
      ...{ line, text, kind: "run", argv, script, user, mounts },
      cwd: workdir === "" ? "/" : workdir,
      env: { ...Object.fromEntries(this.#args), ...env },
    }
  }

  #copy(one: Extract<Instruction, { kind: "copy" }>): CopyStep {
    const { line, text, isAdd, chown, chmod } = one
    const { workdir } = this.#config
    const given = this.#expand(one.target)
    const isDirectory = /\/\.?$/.test(given) || given === "." || given === ""
    const path = absolute(workdir, given)
    const inline = one.heredocs.map(({ name, body, expands }) => ({
      name,
      text: expands
        ? expandBody(body, { variables: this.#variables(), escapeChar: this.#file.escapeChar })
        : body,
    }))
    const sources = one.sources.map((source) => this.#expand(source))
    if (sources.length + inline.length > 1 && !isDirectory)
      throw new BadWord("the target of several sources does not end in a slash")
    return {
      ...{ line, text, kind: "copy", isAdd, sources, inline },
      target: isDirectory && path !== "/" ? `${path}/` : path,
      from: one.from === null ? null : this.#source(this.#expand(one.from)),
      chown: chown === null ? null : this.#expand(chown),
      chmod: chmod === null ? null : Number.parseInt(chmod, 8),
    }
  }

  #source(name: string): BaseOf {
    const before = this.#file.stages.slice(0, this.#index)
    if (/^\d+$/.test(name)) {
      if (Number(name) >= this.#index) throw new BadWord(`there is no earlier stage ${name}`)
      return { kind: "stage", index: Number(name) }
    }
    const base = baseOf(before, name)
    if (base.kind === "scratch") throw new BadWord("scratch has no files")
    return base
  }

  #ports(text: string): number[] {
    const port = this.#expand(text)
    const [, first, last, protocol = "tcp"] =
      /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(port) ?? []
    const [from, to] = [Number(first), Number(last ?? first)]
    if (first === undefined || from < 1 || to > 65_535 || to < from) throw new BadWord(`"${port}" is no port`)
    if (protocol.toLowerCase() === "tcp")
      return Array.from({ length: to - from + 1 }, (_, index) => from + index)
    this.#ignored.push(`${port} is not published: only TCP ports are`)
    return []
  }
}

/** The shell reads the bodies itself. */
function withBodies(command: Command, heredocs: readonly Heredoc[]): Command {
  if (command.form === "exec" || heredocs.length === 0) return command
  const bodies = heredocs.map(({ name, body }) => `${body}${name}\n`)
  return { form: "shell", text: `${command.text}\n${bodies.join("")}` }
}

function absolute(directory: string, path: string): string {
  const parts: string[] = []
  for (const part of `${path.startsWith("/") ? "" : `${directory}/`}${path}`.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== "" && part !== ".") parts.push(part)
  }
  return `/${parts.join("/")}`
}

function withLine<T>(line: number, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof BadWord) throw new DockerfileError(line, error.message)
    throw error
  }
}
