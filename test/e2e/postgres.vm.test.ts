/**
 * PostgreSQL that runs in its image's template: what its clones answer, and what that costs next to a plain create.
 * Building the image takes minutes, so this runs only with BHATTI_TEST_LONG=1; start-command.vm.test.ts is its short
 * form.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { binary, cacheDir, type Installation, install } from "../support/installation.ts"
import { installPostgres, postgresWithoutHook } from "../support/postgres-image.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
if (!isAsked) console.error("BHATTI_TEST_LONG=1 also makes an image with PostgreSQL and clones it")

const clones = 10
const rounds = 3

describe.skipIf(!isAsked)("PostgreSQL in a template", () => {
  let own: Installation
  beforeAll(async () => {
    own = await install()
    await installPostgres(own.dataDir, {
      cacheDir: process.env["BHATTI_TEST_IMAGE_CACHE"] ?? cacheDir,
      agentPath: join(binary, "../lohar"),
    })
  }, 1_800_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 120_000)

  async function create(name: string, ...options: string[]): Promise<{ ms: number; sandbox: Sandbox }> {
    const made = await own.bhatti(["create", "--name", name, "--json", ...options], { deadlineMs: 600_000 })
    if (made.exitCode !== 0) throw new Error(made.stderr)
    return { ms: made.ms, sandbox: JSON.parse(made.stdout) }
  }
  async function run(name: string, ...words: string[]): Promise<{ ms: number; text: string }> {
    const ran = await own.bhatti(["exec", name, "--", ...words], { deadlineMs: 300_000 })
    if (ran.exitCode !== 0) throw new Error(ran.stderr)
    return { ms: ran.ms, text: ran.stdout.trim() }
  }
  const sql = (name: string, ...statements: string[]) =>
    run(name, "psql", "-h", "127.0.0.1", "-U", "postgres", "-tA", ...statements.flatMap((one) => ["-c", one]))

  /** Creates at once, and what the first answer of each took since its create began. */
  async function batch(
    name: string,
    options: string[],
    ask: (name: string) => Promise<{ ms: number; text: string }>,
  ) {
    const names = Array.from({ length: clones }, (_, index) => `${name}-${index}`)
    const made = await Promise.all(
      names.map(async (one) => {
        const { ms } = await create(one, ...options)
        const answer = await ask(one)
        return { create: ms, answered: ms + answer.ms, text: answer.text }
      }),
    )
    return { names, made }
  }
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

  /** Running a program in a fresh machine costs as much as a create. */
  const bare = ["--image", postgresWithoutHook.name]
  const size = ["--memory", "768"]

  test("ten clones of a running database answer at once, differ, and are made as fast as plain ones", async () => {
    await create("plain", ...size)
    await create("bare", ...size, ...bare)
    const times = {
      plain: [] as number[],
      db: [] as number[],
      plainAnswer: [] as number[],
      dbAnswer: [] as number[],
    }
    const uuids = new Set<string>()
    for (let round = 0; round < rounds; round++) {
      const plain = await batch(`plain-${round}`, size, (name) => run(name, "python3", "-c", "print(1)"))
      await own.bhatti(["destroy", ...plain.names, "--yes"])
      const db = await batch(`db-${round}`, [...size, ...bare], (name) =>
        sql(name, "select gen_random_uuid()"),
      )
      await own.bhatti(["destroy", ...db.names, "--yes"])
      times.plain.push(...plain.made.map((one) => one.create))
      times.plainAnswer.push(...plain.made.map((one) => one.answered))
      times.db.push(...db.made.map((one) => one.create))
      times.dbAnswer.push(...db.made.map((one) => one.answered))
      for (const { text } of db.made) uuids.add(text)
    }
    const figures = Object.entries(times).map(([key, values]) => [key, Math.round(median(values))])
    console.error(
      `medians in ms, python3 and psql as first commands: ${JSON.stringify(Object.fromEntries(figures))}`,
    )
    expect(uuids.size).toBe(clones * rounds)
    expect(median(times.db) / median(times.plain)).toBeLessThan(1.2)
  }, 1_800_000)

  test("the hook tells each database whose it is, and what was written before the freeze is the same in all", async () => {
    const names = ["db", "db-1", "db-2"]
    for (const name of names) await create(name, "--image", "postgres", ...size)
    const asked = names.map(async (name) => {
      const { text } = await sql(name, "show bhatti.clone", "select id from made")
      const [clone = "", made = ""] = text.split("\n")
      expect(clone).toBe((await run(name, "cat", "/etc/machine-id")).text)
      return { clone, made }
    })
    const seen = await Promise.all(asked)
    expect(new Set(seen.map(({ clone }) => clone)).size).toBe(3)
    expect(new Set(seen.map(({ made }) => made)).size).toBe(1)
    expect(seen[0]?.made).toMatch(/^[0-9a-f-]{36}$/)
  }, 600_000)

  test("a database survives a stop, a fork and a restart with what was written", async () => {
    await sql("db", "create table kept (n int)", "insert into kept values (7)")
    await own.bhatti(["stop", "db"])
    expect((await sql("db", "select n from kept")).text).toBe("7")
    await create("fork", "--from", "db")
    expect((await sql("fork", "select n from kept", "show bhatti.clone")).text).toBe(
      `7\n${(await run("fork", "cat", "/etc/machine-id")).text}`,
    )
    expect((await own.bhatti(["restart", "db"], { deadlineMs: 120_000 })).exitCode).toBe(0)
    let answer = ""
    for (let tries = 0; answer !== "7" && tries < 100; tries++)
      answer = (await sql("db", "select n from kept").catch(() => ({ text: "" }))).text
    expect(answer).toBe("7")
  }, 600_000)
})
