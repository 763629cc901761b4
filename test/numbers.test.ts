/** The arithmetic of `bun run numbers`, on sources of the test. */

import { expect, test } from "bun:test"
import { languages, measure, portMethods } from "../scripts/numbers.ts"

const lines = (count: number) => "x()\n".repeat(count)

test("sizes, comments and tests are counted for one language", () => {
  const sources = [
    { path: "src/a.ts", text: `/** Owns a. */\n${lines(9)}` },
    { path: "src/b.ts", text: `${lines(400)}// last\n` },
    { path: "src/a.test.ts", text: `/** Tests a. */\n${lines(99)}await Bun.sleep(5)\n` },
    {
      path: "test/http/c.test.ts",
      text: "await until(() => true)\nnew Promise((end) => setTimeout(end, 50))\n",
    },
    { path: "agent/main.go", text: "// Starts.\nvar one interface{}\n" },
  ]
  expect(measure(sources, languages.TypeScript)).toEqual({
    "files / lines": "2 / 411",
    "median / p90 / max": "10 / 401 / 401",
    "files > 400": "1",
    "opens with a comment": "50.0 %",
    "comment share": "0.5 %",
    "test lines per line": "0.25",
    "sleeps in tests": "2",
    "decisions by error text": "0",
    "TODO / any": "0 / 0",
  })
  expect(measure(sources, languages.Go)).toMatchObject({ "files / lines": "1 / 2", "TODO / any": "0 / 1" })
})

test("the methods of core's ports are counted by port", () => {
  const text = `/** Owns a port. */
export interface Disks {
  /** Makes one. */
  create(options: {
    id(): string
  }): Promise<void>
  readonly isFull: boolean
  ask<Op extends string>(op: Op): Promise<Op>
}
export type Handle = {
  close(): void
}
`
  const counts = portMethods([
    { path: "src/core/host/disks.ts", text },
    { path: "src/core/create.ts", text },
  ])
  expect([...counts]).toEqual([
    ["Disks", 2],
    ["Handle", 1],
  ])
})

test.each([
  ['if (error.message.includes("full"))', 1, 0],
  ["return String(message).startsWith(text)", 1, 0],
  ['typeof message === "string"', 0, 0],
  ["const value: any = read()", 0, 1],
  ["(input as any).name; let all: any[]", 0, 2],
  ["/** As any other. */ const list: Array<any>", 0, 1],
])("%s", (text, decisions, any) => {
  expect(measure([{ path: "src/a.ts", text }], languages.TypeScript)).toMatchObject({
    "decisions by error text": `${decisions}`,
    "TODO / any": `0 / ${any}`,
  })
})

test("a commit that the clone does not have is told in a line", () => {
  const script = new URL("../scripts/numbers.ts", import.meta.url).pathname
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, script, "0000000"])
  expect([exitCode, stderr.toString()]).toEqual([
    1,
    expect.stringMatching(/^error: this clone has no commit 0000000.*\n$/),
  ])
})
