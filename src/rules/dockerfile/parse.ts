/**
 * Reads a Dockerfile as a whole, before anything runs: syntax, and everything that is not supported, each with its
 * line.
 */

import type { Command, Dockerfile, Instruction, Mount, Pairs, Stage } from "./instruction.ts"
import { type Line, splitLines } from "./lines.ts"
import { DockerfileError } from "./refusal.ts"
import { splitWords } from "./words.ts"

const textMax = 1024 * 1024
const stageName = /^[a-z][a-z0-9-_.]*$/

export function parseDockerfile(text: string): Dockerfile {
  if (text.length > textMax) throw new DockerfileError(1, "it is larger than 1 MB")
  const { lines, escapeChar } = splitLines(text)
  const file: Dockerfile = { escapeChar, args: [], stages: [] }
  for (const line of lines) {
    const stage = file.stages.at(-1)
    if (line.keyword === "FROM") file.stages.push(stageOf(line, file))
    else if (stage) stage.instructions.push(instructionOf(line, escapeChar))
    else if (line.keyword === "ARG") {
      const read = instructionOf(line, escapeChar)
      if (read.kind === "arg") file.args.push(...read.args.map((arg) => ({ ...arg, line: line.line })))
    } else throw new DockerfileError(line.line, `${line.keyword} before the first FROM`)
  }
  if (file.stages.length === 0) throw new DockerfileError(1, "it has no FROM", "begin it with FROM IMAGE")
  return file
}

function textOf({ keyword, flags, rest, heredocs }: Line): string {
  const words = [
    keyword,
    ...flags.map(({ name, value }) => (value === null ? `--${name}` : `--${name}=${value}`)),
    rest,
  ]
  return words.join(" ").replaceAll(/\s+/g, " ").slice(0, 200) + (heredocs.length > 0 ? " …" : "")
}

function stageOf(line: Line, { stages }: Dockerfile): Stage {
  const flags = flagsOf(line, ["platform"])
  const words = line.rest.split(/\s+/)
  const [base = "", as, name, ...more] = words
  if (base === "" || more.length > 0 || (as !== undefined && (as.toUpperCase() !== "AS" || !name)))
    throw new DockerfileError(line.line, "FROM is not FROM IMAGE [AS NAME]")
  const lower = name?.toLowerCase() ?? null
  if (lower !== null && !stageName.test(lower))
    throw new DockerfileError(line.line, `"${name}" is no name of a stage`)
  if (lower !== null && stages.some((stage) => stage.name === lower))
    throw new DockerfileError(line.line, `there are two stages "${name}"`)
  return {
    ...{ line: line.line, text: textOf(line), base, name: lower },
    platform: flags.get("platform") ?? null,
    instructions: [],
  }
}

/** The values of known flags; an unknown one is an error, and so is a flag given twice. */
function flagsOf(
  line: Line,
  known: readonly string[],
  repeated: readonly string[] = [],
): Map<string, string> {
  const values = new Map<string, string>()
  for (const { name, value } of line.flags) {
    if (!known.includes(name) && !repeated.includes(name))
      throw new DockerfileError(line.line, `${line.keyword} --${name} is not supported`)
    if (values.has(name) && !repeated.includes(name))
      throw new DockerfileError(line.line, `${line.keyword} has --${name} twice`)
    values.set(name, value ?? "true")
  }
  return values
}

function instructionOf(line: Line, escapeChar: string): Instruction {
  const about = { line: line.line, text: textOf(line) }
  const { keyword, rest } = line
  if (rest === "" && keyword !== "") throw new DockerfileError(line.line, `${keyword} has no arguments`)
  switch (keyword) {
    case "RUN":
      return {
        ...about,
        kind: "run",
        command: commandOf(line),
        heredocs: line.heredocs,
        mounts: mountsOf(line),
      }
    case "COPY":
    case "ADD":
      return copyOf(line, about, escapeChar)
    case "ENV":
      return { ...about, kind: "env", ...pairsOf(line, escapeChar) }
    case "LABEL":
      return { ...about, kind: "label", ...pairsOf(line, escapeChar) }
    case "MAINTAINER":
      return { ...about, kind: "label", isRaw: true, pairs: [{ name: "maintainer", value: rest }] }
    case "ARG":
      return { ...about, kind: "arg", args: splitWords(rest, escapeChar).map((word) => argOf(word, line)) }
    case "WORKDIR":
      return { ...about, kind: "workdir", value: rest }
    case "USER":
      return { ...about, kind: "user", value: rest }
    case "STOPSIGNAL":
      return { ...about, kind: "stopsignal", value: rest }
    case "EXPOSE":
      return { ...about, kind: "expose", values: splitWords(rest, escapeChar) }
    case "VOLUME":
      return { ...about, kind: "volume", values: jsonWords(line) ?? splitWords(rest, escapeChar) }
    case "CMD":
      return { ...about, kind: "cmd", command: commandOf(line) }
    case "ENTRYPOINT":
      return { ...about, kind: "entrypoint", command: commandOf(line) }
    case "SHELL": {
      const words = jsonWords(line)
      if (!words || words.length === 0)
        throw new DockerfileError(line.line, 'SHELL is not a list, such as ["/bin/bash", "-c"]')
      return { ...about, kind: "shell", words }
    }
    case "HEALTHCHECK":
      return { ...about, kind: "healthcheck" }
    case "ONBUILD":
      throw new DockerfileError(
        line.line,
        "ONBUILD is not supported",
        "write its instruction into the Dockerfiles that build on this image",
      )
  }
  throw new DockerfileError(line.line, `unknown instruction ${keyword}`)
}

function argOf(word: string, { line }: Line): { name: string; value: string | null } {
  const at = word.indexOf("=")
  const name = at < 0 ? word : word.slice(0, at)
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    throw new DockerfileError(line, `"${name}" is no name of an ARG`)
  return { name, value: at < 0 ? null : word.slice(at + 1) }
}

function jsonWords({ rest, line, keyword }: Line): string[] | undefined {
  if (!rest.trimStart().startsWith("[")) return undefined
  let parsed: unknown
  try {
    parsed = JSON.parse(rest)
  } catch {
    // A shell has a program called `[`.
    return undefined
  }
  if (Array.isArray(parsed) && parsed.every((word) => typeof word === "string")) return parsed
  throw new DockerfileError(line, `${keyword} has a list that holds more than texts`)
}

function commandOf(line: Line): Command {
  const words = jsonWords(line)
  if (words && line.keyword === "RUN" && words.length === 0)
    throw new DockerfileError(line.line, "RUN has an empty list")
  return words ? { form: "exec", words } : { form: "shell", text: line.rest }
}

/** `NAME=VALUE …`, or the older `NAME VALUE`, whose value is the rest of the line. */
function pairsOf({ rest, line, keyword }: Line, escapeChar: string): { pairs: Pairs; isRaw: boolean } {
  const words = splitWords(rest, escapeChar)
  const [first = ""] = words
  if (!first.includes("=")) {
    const [, name = "", value] = /^(\S+)\s+([\s\S]+)$/.exec(rest) ?? []
    if (value === undefined) throw new DockerfileError(line, `${keyword} is not ${keyword} NAME=VALUE`)
    return { pairs: [{ name, value }], isRaw: false }
  }
  const pairs = words.map((word) => {
    const at = word.indexOf("=")
    if (at < 1) throw new DockerfileError(line, `"${word}" is not NAME=VALUE`)
    return { name: word.slice(0, at), value: word.slice(at + 1) }
  })
  return { pairs, isRaw: false }
}

function copyOf(line: Line, about: { line: number; text: string }, escapeChar: string): Instruction {
  const isAdd = line.keyword === "ADD"
  const flags = flagsOf(line, ["chown", "chmod", "link", ...(isAdd ? [] : ["from"])])
  const words = jsonWords(line) ?? splitWords(line.rest, escapeChar)
  const target = words.at(-1)
  if (words.length < 2 || target === undefined)
    throw new DockerfileError(line.line, `${line.keyword} is not ${line.keyword} SOURCE… TARGET`)
  const isHeredoc = (word: string) => /^\d*<<-?["']?[^<"'\s]+["']?$/.test(word)
  const sources = words.slice(0, -1).filter((word) => !isHeredoc(word))
  for (const source of sources)
    if (isAdd && /^([a-z][a-z0-9+.-]*:\/\/|git@)/i.test(source))
      throw new DockerfileError(
        line.line,
        "ADD of a URL is not supported",
        "fetch it with RUN, or copy it into the directory of the build first",
      )
  const chmod = flags.get("chmod") ?? null
  if (chmod !== null && !/^[0-7]{3,4}$/.test(chmod))
    throw new DockerfileError(line.line, `--chmod=${chmod} is not an octal mode, such as 755`)
  const from = flags.get("from") ?? null
  if (from !== null && line.heredocs.length > 0)
    throw new DockerfileError(line.line, "a here document does not come from another stage")
  return {
    ...about,
    ...{ kind: "copy", isAdd, sources, target, heredocs: line.heredocs, from, chmod },
    chown: flags.get("chown") ?? null,
  }
}

function mountsOf(line: Line): Mount[] {
  const flags = flagsOf(line, ["network"], ["mount"])
  if (!["default", undefined].includes(flags.get("network")))
    throw new DockerfileError(line.line, `RUN --network=${flags.get("network")} is not supported`)
  return line.flags.filter(({ name }) => name === "mount").map(({ value }) => mountOf(value ?? "", line))
}

function mountOf(text: string, { line }: Line): Mount {
  const options = new Map(
    text.split(",").map((part) => {
      const at = part.indexOf("=")
      return at < 0 ? [part, "true"] : [part.slice(0, at), part.slice(at + 1)]
    }),
  )
  const take = (...names: string[]) => {
    const name = names.find((one) => options.has(one))
    const value = name === undefined ? undefined : options.get(name)
    for (const one of names) options.delete(one)
    return value
  }
  const type = take("type") ?? "bind"
  const target = take("target", "dst", "destination") ?? null
  const mount = ((): Mount => {
    if (type === "secret") {
      const id = take("id") ?? target?.split("/").at(-1)
      if (id === undefined || !/^[A-Za-z0-9_.-]{1,64}$/.test(id))
        throw new DockerfileError(line, "a secret has no id of letters, digits, dots, dashes and underscores")
      const mode = take("mode") ?? "0400"
      const ids = [take("uid") ?? "0", take("gid") ?? "0"].map(Number)
      if (!/^[0-7]{3,4}$/.test(mode) || ids.some((one) => !Number.isInteger(one) || one < 0))
        throw new DockerfileError(line, "the secret's mode, uid or gid is not a number")
      const [uid = 0, gid = 0] = ids
      const isRequired = (take("required") ?? "false") === "true"
      return { type, id, target, env: take("env") ?? null, isRequired, mode, uid, gid }
    }
    if ((type === "cache" || type === "tmpfs") && target !== null) {
      for (const name of ["id", "sharing", "mode", "uid", "gid", "size", "from", "source"]) {
        if (type === "cache" && ["from", "source"].includes(name)) continue
        take(name)
      }
      return { type, target }
    }
    throw new DockerfileError(
      line,
      `RUN --mount=type=${type}${target === null ? " without a target" : ""} is not supported`,
      "secret, cache and tmpfs are",
    )
  })()
  const [unknown] = options.keys()
  if (unknown !== undefined)
    throw new DockerfileError(line, `RUN --mount=type=${type},${unknown}= is not supported`)
  if (mount.target !== null && !mount.target.startsWith("/"))
    throw new DockerfileError(line, `the mount's target ${mount.target} is not an absolute path`)
  return mount
}
