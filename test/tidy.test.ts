/** Rules of the repository that a machine can check. */

import { expect, test } from "bun:test"
import { basename, join, resolve } from "node:path"
import { commandsOf, drawScreen } from "../scripts/recording.ts"

const root = resolve(import.meta.dir, "..")
const bannedNames =
  /(^|[-.])(utils?|helpers?|misc|common|manager|service|handlers?|data|info|impl|v2|new|legacy)([-.]|$)/

async function sources(pattern: string): Promise<{ file: string; text: string }[]> {
  const files = [...new Bun.Glob(pattern).scanSync(root)].filter(
    (file) => !/(^|\/)(node_modules|dist)\//.test(file),
  )
  return Promise.all(files.map(async (file) => ({ file, text: await Bun.file(join(root, file)).text() })))
}

test("every source file opens with what it owns", async () => {
  const wrong = (await sources("{contract,sdk,src,images,scripts,bench,test}/**/*.ts"))
    .filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("every Go file opens with a comment", async () => {
  const wrong = (await sources("{agent,jail,unpack}/**/*.go"))
    .filter(({ text }) => !text.startsWith("//"))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("files are named after the one thing they hold", async () => {
  const wrong = (await sources("{contract,sdk,src}/**/*.ts"))
    .map(({ file }) => file)
    .filter((file) => bannedNames.test(basename(file)))
  expect(wrong).toEqual([])
})

const sourcesWithComments = async () => [
  ...(await sources("{contract,sdk,src,images,scripts,bench,test}/**/*.ts")),
  ...(await sources("{agent,jail,unpack}/**/*.go")),
  ...(await sources("{zygote,test/support}/*.{c,h}")),
  ...(await sources("{*,scripts/*}.sh")),
]

test("no comment is wider than 120 columns", async () => {
  const all = await sourcesWithComments()
  const wrong = all.flatMap(({ file, text }) =>
    text
      .split("\n")
      .filter((line) => /^\s*(\/\/|\/\*|\*|# )/.test(line) && line.replaceAll("\t", "    ").length > 120)
      .map((line) => `${file}: ${line.trim()}`),
  )
  expect(wrong).toEqual([])
})

test("a comment opens with its subject or its verb", async () => {
  const all = await sourcesWithComments()
  const wrong = all.flatMap(({ file, text }) => {
    const lines = text.split("\n")
    return lines
      .filter(
        (line, index) => !/^\s*(\/\/|\/\*|#)/.test(lines[index - 1] ?? "") || !/^\s*(\/\/|#)/.test(line),
      )
      .filter((line) =>
        /^\s*(\/\/|\/\*\*?|\*|#) *((What|Who|Whoever|Of|Those|Whether|Nothing)\b|`[^`]+`:)/.test(line),
      )
      .map((line) => `${file}: ${line.trim()}`)
  })
  expect(wrong).toEqual([])
})

test("files have at most 400 lines", async () => {
  const all = [
    ...(await sources("{contract,sdk,src}/**/*.ts")),
    ...(await sources("{agent,jail,unpack}/**/*.go")),
  ]
  const long = all
    .filter(({ file }) => !/[._]test\.(ts|go)$/.test(file))
    .filter(({ text }) => text.split("\n").length > 401)
    .map(({ file }) => file)
  expect(long).toEqual([])
})

/** These are to be shortened; none may be added. */
const longFunctions = [
  "sdk/typescript/client.ts: connect",
  "src/daemon.ts: openCore",
  "src/daemon.ts: serve",
  "src/http/app.ts: createApp",
  "src/machine/command-line.ts: qemuArguments",
  "src/network/ruleset.ts: baseRules",
]

test("functions have at most 70 lines", async () => {
  const all = [
    ...(await sources("{contract,sdk,src}/**/*.ts")),
    ...(await sources("{agent,jail,unpack}/**/*.go")),
  ]
  const long = all
    .filter(({ file }) => !/[._]test\.(ts|go)$/.test(file))
    .flatMap(({ file, text }) => functionsIn(text).map((found) => ({ file, ...found })))
    .filter(({ lines }) => lines > 70)
    .map(({ file, name }) => `${file}: ${name}`)
  expect(long.sort()).toEqual(longFunctions)
})

/** Finds functions and methods by their first line and by the closing brace at the same indentation, as formatted. */
function functionsIn(text: string): { name: string; lines: number }[] {
  const lines = text.split("\n")
  const named = /^(export )?(async )?function\*? (\w+)|^func (\([^)]*\) )?(\w+)/
  const method = /^ {2}((static|protected|override|async|get|set) )*\*?(#?\w+)(<.*>)?\((.*\{)?$/
  return lines.flatMap((line, index) => {
    const name = named.exec(line)?.at(3) ?? named.exec(line)?.at(5) ?? method.exec(line)?.at(3)
    if (name === undefined || line.endsWith("=> {") || /^(if|for|while|switch)$/.test(name)) return []
    const indent = line.startsWith(" ") ? "  " : ""
    const end = lines.findIndex((one, at) => at > index && one.replace(/,$/, "") === `${indent}}`)
    return end < 0 ? [] : [{ name, lines: end - index + 1 }]
  })
}

test("every source file is imported, or is where a program starts", async () => {
  const all = await sources("{contract,sdk,src,images,scripts,bench,test}/**/*.ts")
  const imported = new Set(
    all.flatMap(({ file, text }) =>
      [...text.matchAll(/(?:from|import\(?|file:) *["'`](\.{1,2}\/[^"'`]+)["'`]/g)].map(([, path = ""]) =>
        join(file, "..", path),
      ),
    ),
  )
  for (const { text } of all)
    for (const [, name, path] of text.matchAll(/(?:from|import\(?) *"@bhatti\/(contract|sdk)\/([^"]+)"/g))
      imported.add(`${name === "sdk" ? "sdk/typescript" : name}/${path}.ts`)
  const dead = all
    .map(({ file }) => file)
    .filter((file) => /^(contract|sdk|src)\//.test(file) && !file.endsWith(".test.ts") && !imported.has(file))
  expect(dead.sort()).toEqual([
    "sdk/typescript/index.ts",
    "src/assets.d.ts",
    "src/client-main.ts",
    "src/main.ts",
  ])
})

test("no error's text decides anything, and no error is swallowed", async () => {
  const wrong = (await sources("{contract,sdk,src}/**/*.ts"))
    .filter(({ text }) =>
      /(\.message|\(message\))\s*(===|\.includes|\.startsWith|\.match)|catch\s*\{\s*\}/.test(text),
    )
    .map(({ file }) => file)
    .filter((file) => !file.endsWith(".test.ts"))
  // SQLite tells which constraint was violated in no other way.
  expect(wrong).toEqual(["src/store/sqlite/constraints.ts"])
})

test("the process is ended in one place", async () => {
  const wrong = (await sources("{contract,sdk,src}/**/*.ts"))
    .filter(({ text }) => text.includes("process.exit("))
    .map(({ file }) => file)
    .filter((file) => file !== "src/cli/cli.ts")
  expect(wrong).toEqual([])
})

test("signals are listened for in one place of the command line, and one of the daemon", async () => {
  const listening = (await sources("{contract,sdk,src}/**/*.ts"))
    .filter(({ text }) => /process\.(on|once|addListener)\((?!"(exit|unhandledRejection)")/.test(text))
    .map(({ file }) => file)
  expect(listening.sort()).toEqual(["src/cli/signals.ts", "src/daemon.ts"])
})

test("no deadline depends on the time of day, which somebody may set", async () => {
  /** They compare with what is kept longer than the process: times of files, of events and of people. */
  const ofTheCalendar = [
    "src/cli/commands/",
    "src/cli/connection-checks.ts",
    "src/preflight.ts",
    "src/cli/event-words.ts",
    "src/core/clock.ts",
    "src/daemon.ts",
    "src/guest/guest.ts",
    "src/image/commit.ts",
    "src/init.ts",
    "src/machine/template-files.ts",
    "src/store/store.ts",
  ]
  const timeOfDay = /\bDate\.now\(\)|\bnew Date\(\)\.(getTime|valueOf)\(\)|\+new Date\(\)/
  const deadline = /deadline|timeout|patience|until(Ms)?\b|(end|give\w*|stop)(At)?Ms/i
  const wrong = (await sources("{contract,sdk,src}/**/*.ts"))
    .filter(({ file }) => !file.endsWith(".test.ts"))
    .flatMap(({ file, text }) =>
      text
        .split("\n")
        .filter((line) => timeOfDay.test(line))
        .filter((line) => deadline.test(line) || !ofTheCalendar.some((path) => file.startsWith(path)))
        .map((line) => `${file}: ${line.trim()}`),
    )
  expect(wrong).toEqual([])
})

test("core names no path, socket or device of a machine", async () => {
  const named =
    /directoryOf|overlayOf|overlayPath|diskPath|agentSocket|socketPath|databasePath|vmlinux|initramfs|sharedMemory|tapName|tapOf|\bnode:fs\b/i
  const wrong = (await sources("src/core/**/*.ts"))
    .filter(({ text }) => named.test(text))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("functions and classes of core take the parts of Core that they use", async () => {
  const takesWhole = (await sources("src/core/**/*.ts")).flatMap(({ text }) =>
    [...text.matchAll(/: Core(?=[,)\n])/g)].map(
      ({ index }) => [...text.slice(0, index).matchAll(/(?:function|class) (\w+)/g)].at(-1)?.[1],
    ),
  )
  expect(takesWhole.sort()).toEqual(["createSandbox", "createSandboxes"])
})

test("core's time goes through its clock", async () => {
  const bypass =
    /performance\.now|\bDate\.now|new Date\(\)|\bset(Timeout|Interval)\(|Bun\.(sleep|nanoseconds)/
  const wrong = (await sources("src/core/*.ts"))
    .filter(({ file, text }) => file !== "src/core/clock.ts" && bypass.test(text))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("every file that ARCHITECTURE names exists", async () => {
  const text = await Bun.file(join(root, "docs/ARCHITECTURE.md")).text()
  const files = (await sources("{contract,sdk,src,agent,jail,unpack}/**/*.{ts,go}")).map(
    ({ file }) => `/${file}`,
  )
  const named = new Set([...text.matchAll(/`([\w/-]+\.(?:ts|go))`/g)].map(([, name]) => `/${name}`))
  expect([...named].filter((name) => !files.some((file) => file.endsWith(name)))).toEqual([])
})

test("the README's picture shows the commands of its example", async () => {
  const commands = commandsOf(await Bun.file(join(root, "README.md")).text())
  const picture = await Bun.file(join(root, "docs/session.svg")).text()
  expect(commands.length).toBeGreaterThan(5)
  expect(typedIn(picture)).toEqual(typedIn(drawScreen(commands.map((command) => `$ ${command}`))))
})

function typedIn(picture: string): string[] {
  return [...picture.matchAll(/<tspan class="typed">(.*?)<\/tspan>/g)].map(([, typed]) => typed ?? "")
}
