/** Help: every command has it, and docs are fresh. */

import { expect, test } from "bun:test"
import { join } from "node:path"
import { commands } from "../../src/cli/commands/index.ts"
import { bhatti } from "./program.ts"

test("every command has a summary, examples that use it, and summaries for its options", async () => {
  for (const entry of commands) {
    expect(entry.summary).toMatch(/^[A-Z].*[^.]$/)
    const command = await entry.load()
    expect(command.examples.length).toBeGreaterThan(0)
    for (const example of command.examples)
      expect([entry.name, ...(entry.aliases ?? [])].some((name) => example.includes(`bhatti ${name}`))).toBe(
        true,
      )
    for (const option of Object.values(command.options ?? {})) expect(option.summary).toMatch(/^[A-Z].*[^.]$/)
  }
})

test("no two commands share a name, no two options of a command a letter", async () => {
  const names = commands.flatMap((entry) => [entry.name, ...(entry.aliases ?? [])])
  expect(new Set(names).size).toBe(names.length)
  for (const entry of commands) {
    const letters = Object.values((await entry.load()).options ?? {}).flatMap((option) => option.short ?? [])
    expect(new Set([...letters, "h"]).size).toBe(letters.length + 1)
  }
})

test("help is the same however it is asked for, and goes to standard output", async () => {
  const [long, short, verb] = await Promise.all([
    bhatti(["exec", "--help"]),
    bhatti(["exec", "-h"]),
    bhatti(["help", "exec"]),
  ])
  expect(long.stdout).toContain("Usage: bhatti exec [options] SANDBOX [--] COMMAND [ARG...]")
  expect(long.stdout).toContain("Examples:\n  bhatti exec dev -- npm install")
  expect(short).toEqual(long)
  expect(verb).toEqual(long)
  expect(long).toMatchObject({ stderr: "", exitCode: 0 })
})

test("bhatti alone, bhatti --help and bhatti help list every command", async () => {
  const [alone, asked, verb] = await Promise.all([bhatti([]), bhatti(["--help"]), bhatti(["help"])])
  expect(alone).toEqual(asked)
  expect(verb).toEqual(asked)
  for (const { name, summary } of commands)
    expect(asked.stdout).toMatch(new RegExp(`  ${name}.*  ${summary}`))
})

test("a group lists its commands; without one it is wrong usage", async () => {
  const asked = await bhatti(["user", "--help"])
  expect(asked).toMatchObject({ exitCode: 0, stderr: "" })
  expect(asked.stdout).toContain("user rotate-key")
  expect(await bhatti(["user"])).toMatchObject({ exitCode: 2, stdout: "" })
  expect((await bhatti(["help", "user"])).stdout).toBe(asked.stdout)
  expect((await bhatti(["help", "user", "delete"])).stdout).toContain("Usage: bhatti user delete")
})

test("docs/cli.md and docs/openapi.json are fresh", async () => {
  const root = join(import.meta.dir, "../..")
  const check = Bun.spawn([process.execPath, "scripts/generate.ts", "--check"], { cwd: root, stderr: "pipe" })
  expect(await check.stderr.text()).toBe("")
  expect(await check.exited).toBe(0)
})
