/** Reading arguments. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { optionFlag, parseArguments } from "./arguments.ts"
import { command } from "./command.ts"

const sample = command({
  args: ["sandbox"],
  rest: { name: "command", kind: "command" },
  options: {
    stdin: { type: "flag", short: "i", summary: "" },
    tty: { type: "flag", short: "t", summary: "" },
    env: { type: "variables", short: "e", value: "K=V", summary: "" },
    maxCpus: { type: "integer", short: "c", value: "N", min: 1, max: 64, summary: "" },
    label: { type: "labels", value: "K=V", summary: "" },
    memory: { type: "size", value: "MB", min: 128, max: 1_048_576, summary: "" },
    cwd: { type: "text", short: "w", value: "DIR", summary: "" },
    file: { type: "list", short: "f", value: "FILE", summary: "" },
    signal: { type: "choice", value: "SIGNAL", choices: ["TERM", "INT"], summary: "" },
    timeout: { type: "seconds", value: "S", max: 100, summary: "" },
  },
  examples: [],
  async run() {},
})

function optionsOf(...argv: string[]) {
  return parseArguments(sample, [...argv, "dev", "true"]).options
}

test("all ways to write an option mean the same", () => {
  for (const argv of [["--max-cpus", "4"], ["--max-cpus=4"], ["-c", "4"], ["-c4"], ["-c=4"], ["-ic4"]])
    expect(optionsOf(...argv)).toMatchObject({ maxCpus: 4 })
  expect(optionsOf("-it")).toMatchObject({ stdin: true, tty: true })
  expect(optionsOf()).toMatchObject({ stdin: false, tty: false })
  expect(optionsOf("--cwd=/a=b")).toMatchObject({ cwd: "/a=b" })
  expect(optionsOf("--cwd", "-")).toMatchObject({ cwd: "-" })
})

test("sizes are MB or have a unit", () => {
  const cases: [string, number][] = [
    ["1024", 1024],
    ["512M", 512],
    ["512mb", 512],
    ["2G", 2048],
    ["2GiB", 2048],
    ["1T", 1_048_576],
  ]
  for (const [text, mib] of cases) expect(optionsOf("--memory", text)).toMatchObject({ memory: mib })
  for (const text of ["", "G", "1.5G", "0x400", "1 G", "2GG", "127", "-1G", "2T"])
    expect(() => optionsOf(`--memory=${text}`)).toThrow(AppError)
})

test("labels are split at commas only if every part is one, and later ones win", () => {
  const cases: [string[], Record<string, string>][] = [
    [["--label", "a=1,b=x=y", "--label", "c=,a=3"], { a: "3", b: "x=y", c: "" }],
    [["--label", "list=a,b,c"], { list: "a,b,c" }],
    [["--label", "team/name=x,b.c=y"], { "team/name": "x", "b.c": "y" }],
  ]
  for (const [argv, label] of cases) expect(optionsOf(...argv).label).toEqual(label)
})

test("lists keep every value as it is, choices only what they offer", () => {
  expect(optionsOf().file).toEqual([])
  expect(optionsOf("-f", "a,b", "--file=c").file).toEqual(["a,b", "c"])
  expect(optionsOf("--signal", "TERM")).toMatchObject({ signal: "TERM" })
  expect(() => optionsOf("--signal", "NOPE")).toThrow("--signal is one of TERM, INT")
})

test("arguments that may be left out, and combinations that may not stand together", () => {
  const optional = command({
    args: ["sandbox"],
    optionalArgs: ["session"],
    options: {
      new: { type: "flag", summary: "" },
      port: { type: "integer", value: "N", min: 1, max: 9, summary: "" },
    },
    refuse: ({ args, options }) => (options.new && args.session !== undefined ? "not both" : undefined),
    examples: [],
    async run() {},
  })
  expect(parseArguments(optional, ["dev"]).args).toEqual({ sandbox: "dev", session: undefined })
  expect(parseArguments(optional, ["dev", "s1"]).args).toEqual({ sandbox: "dev", session: "s1" })
  expect(() => parseArguments(optional, ["dev", "s1", "x"])).toThrow('unexpected argument "x"')
  expect(() => parseArguments(optional, ["dev", "s1", "--new"])).toThrow("not both")
  expect(parseArguments(optional, ["--help"]).common.help).toBe(true)
})

test("the guest's command is never read", () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (words) => {
      expect(parseArguments(sample, ["-i", "dev", "--", "sh", ...words]).rest).toEqual(["sh", ...words])
      expect(parseArguments(sample, ["dev", "sh", ...words]).rest).toEqual(["sh", ...words])
    }),
  )
})

test("whatever is typed, the answer is arguments or an AppError", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string(), fc.constantFrom("-", "--", "-e", "--memory", "-it", "--env="))),
      (argv) => {
        try {
          parseArguments(sample, argv)
        } catch (error) {
          if (!(error instanceof AppError)) throw error
        }
      },
    ),
  )
})

test("a switch is on without a value, and takes the next word only if it is one", () => {
  const edit = command({
    args: ["sandbox"],
    options: { keepHot: { type: "switch", summary: "" } },
    examples: [],
    async run() {},
  })
  const cases: [string[], boolean | undefined][] = [
    [["dev"], undefined],
    [["--keep-hot", "dev"], true],
    [["dev", "--keep-hot"], true],
    [["dev", "--keep-hot", "--json"], true],
    [["dev", "--keep-hot", "on"], true],
    [["--keep-hot", "off", "dev"], false],
    [["dev", "--keep-hot=false"], false],
    [["dev", "--keep-hot=true"], true],
  ]
  for (const [argv, keepHot] of cases) {
    const { args, options } = parseArguments(edit, argv)
    expect([argv, args.sandbox, options.keepHot]).toEqual([argv, "dev", keepHot])
  }
  for (const word of ["maybe", "", "toString"])
    expect(() => parseArguments(edit, ["dev", `--keep-hot=${word}`])).toThrow("--keep-hot is on or off")
})

test("an option's flag is its name in kebab case", () => {
  expect(optionFlag("maxSandboxes")).toBe("--max-sandboxes")
})
