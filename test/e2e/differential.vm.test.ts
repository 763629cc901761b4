/**
 * Programs print the same in a forked, a cloned and a booted sandbox, also after a stop and a wake: machines differ in
 * how they were started, and in what QEMU has translated before, and no program may notice. `DIFFERENTIAL=.` runs all
 * programs (test/programs), in an image with more languages; another pattern those whose names it matches.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { allPrograms, fewPrograms } from "../programs/all.ts"
import { residents } from "../programs/residents.ts"
import { binary, cacheDir, type Installation, install, until } from "../support/installation.ts"
import { installProgramsImage } from "../support/programs-image.ts"
import { Requests } from "../support/requests.ts"

const pattern = process.env["DIFFERENTIAL"] ?? (process.env["BHATTI_TEST_LONG"] === "1" ? "." : "")
const isLong = pattern !== ""
if (!isLong) console.error("DIFFERENTIAL=. compares all programs, which takes an hour")
const chosen = Object.entries(allPrograms).filter(([name]) => new RegExp(pattern).test(name))
const programs = isLong ? Object.fromEntries(chosen) : fewPrograms
/** Starting the others takes seconds. */
const present = residents.filter(({ name }) => isLong || name === "python")
const names = ["cloned", "booted", "forked"] as const
/** The slowest of them, on a busy host. */
const programDeadlineMs = isLong ? 600_000 : 60_000
const longMs = 3 * 60 * 60 * 1000

describe.skipIf(process.getuid?.() !== 0)("programs", () => {
  let own: Installation
  let requests: Requests

  const create = async (name: string) => {
    const made = await own.bhatti(
      ["create", "--name", name, ...(isLong ? ["--image", "programs", "--memory", "1024"] : [])],
      { deadlineMs: 600_000 },
    )
    expect(made.stderr + made.exitCode).toEndWith("0")
    const { body } = await requests.send("GET", `/events?sandbox=${name}&type=sandbox.created`)
    return (body as { meta: { from: string } }[]).at(-1)?.meta.from
  }
  const run = async (name: string, script: string) => {
    const { stdout, exitCode } = await own.bhatti(["exec", name, "--", "sh", "-c", script], {
      deadlineMs: programDeadlineMs,
    })
    return `exit code ${exitCode}\n${stdout}`
  }
  const runEverywhere = async (script: string) => {
    const outputs = await Promise.all(names.map(async (name) => [name, await run(name, script)]))
    return Object.fromEntries(outputs) as Record<string, string>
  }
  const stopAll = async () => {
    for (const name of names) {
      const stopped = await requests.stop(name)
      expect([name, stopped.status]).toEqual([name, 200])
    }
    for (const name of names) expect((await requests.show(name))?.status).toBe("stopped")
  }

  beforeAll(async () => {
    if (process.getuid?.() !== 0) return
    own = await install({ config: "warm_after: 0\nforks: auto\n" })
    requests = new Requests(own)
    if (isLong) await installProgramsImage(own.dataDir, { cacheDir, agentPath: join(binary, "../lohar") })
    expect(await create("cloned")).toEqual("template")
    await create("booted")
    expect((await requests.send("POST", "/sandboxes/booted/restart")).status).toBe(200)
    await until(
      "a sandbox is forked",
      async () => {
        if ((await create("forked")) === "fork") return true
        await requests.destroy("forked")
        return false
      },
      { deadlineMs: 120_000 },
    )
  }, 1_800_000)
  afterAll(async () => {
    await own?.[Symbol.asyncDispose]()
  }, 120_000)

  test(
    "print the same in a forked, a cloned and a booted sandbox, and again after a stop and a wake",
    async () => {
      const everywhere = (output: string) => Object.fromEntries(names.map((name) => [name, output]))
      for (const { start } of present)
        expect(await runEverywhere(start)).toEqual(everywhere("exit code 0\nhalf\n"))

      const before: Record<string, string> = {}
      const wrong: Record<string, unknown> = {}
      for (const [name, script] of Object.entries(programs)) {
        if (isLong) console.error(name)
        const outputs = await runEverywhere(script)
        before[name] = outputs["cloned"] ?? ""
        const isSame = new Set(Object.values(outputs)).size === 1
        if (!isSame || !/^exit code 0\n./s.test(before[name])) wrong[name] = outputs
      }
      expect(wrong).toEqual({})

      await stopAll()
      for (const [name, script] of Object.entries(programs)) {
        const outputs = await runEverywhere(script)
        if (Object.values(outputs).some((output) => output !== before[name])) wrong[name] = outputs
      }
      expect(wrong).toEqual({})

      for (const { finish, result } of present)
        expect(await runEverywhere(finish)).toEqual(everywhere(`exit code 0\n${result}\n`))
    },
    isLong ? longMs : 300_000,
  )
})
