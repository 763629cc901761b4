/**
 * The image `code-interpreter`: a kernel that runs already, and its server. As with docker.vm.test.ts the first run
 * needs BHATTI_TEST_LONG=1, and later ones use what it has kept
 * for the first tests.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { codeInterpreter } from "../../images/code-interpreter.ts"
import { HostImage, templatesIn } from "../support/host-images.ts"
import { type Installation, install, until } from "../support/installation.ts"

const isLong = process.env["BHATTI_TEST_LONG"] === "1"
const image = new HostImage(codeInterpreter)
const isAtHand = await image.isAtHand()
if (!isAtHand)
  console.error("BHATTI_TEST_LONG=1 also builds the image code-interpreter, and keeps it for later runs")

const port = 49_999
const deadlineMs = 400_000

type Line = { type: string; text?: string; name?: string; png?: string; is_main_result?: boolean }

describe.skipIf(!isAtHand)("the code interpreter", () => {
  let own: Installation
  beforeAll(async () => {
    own = await install()
    await image.install(own)
  }, 1_800_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 120_000)

  async function create(name: string, ...options: string[]): Promise<number> {
    const args = ["create", "--name", name, "--image", "code-interpreter", ...options]
    const made = await own.bhatti(args, { deadlineMs })
    if (made.exitCode !== 0) throw new Error(made.stderr)
    const published = await own.bhatti(["publish", name, "-p", String(port), "-a", name])
    if (published.exitCode !== 0) throw new Error(published.stderr)
    return made.ms
  }
  const call = (name: string, path: string, body?: unknown, init: RequestInit = {}) =>
    fetch(`${own.url}${path}`, {
      ...init,
      headers: { host: `${name}.localhost` },
      ...(body !== undefined && { method: "POST", body: JSON.stringify(body) }),
    })
  async function run(name: string, code: string, more: Record<string, unknown> = {}): Promise<Line[]> {
    const answer = await call(name, "/execute", { code, ...more })
    const text = await answer.text()
    if (!answer.ok) throw new Error(text)
    return text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Line)
  }
  /** The value of its last expression. */
  async function answerOf(name: string, code: string, more: Record<string, unknown> = {}): Promise<string> {
    const lines = await run(name, code, more)
    const result = lines.find(({ type, is_main_result }) => type === "result" && is_main_result)
    if (result?.text === undefined) throw new Error(JSON.stringify(lines))
    return result.text
  }

  test("a new sandbox's kernel answers at once, and has pandas loaded", async () => {
    const before = templatesIn(own.dataDir)
    await create("first")
    image.keep(own, before)
    const made = await create("data", "--env", "WHO=me")
    const times = [made]
    for (const code of ["1+1", "import pandas; pandas.Series([1, 2]).sum()"]) {
      const startedAt = performance.now()
      expect(await answerOf("data", code)).toBe(code === "1+1" ? "2" : "3")
      times.push(performance.now() - startedAt)
    }
    console.error(`create, 1+1, import pandas: ${times.map((ms) => Math.round(ms)).join(", ")} ms`)
    const [number] = await run("data", "pass")
    expect(number).toEqual({ type: "number_of_executions", execution_count: 3 } as Line)
  }, 500_000)

  test("each sandbox has random numbers and variables of its own", async () => {
    const code = "import random, numpy, os; [random.random(), numpy.random.rand(), os.environ.get('WHO')]"
    const [first, data] = [await answerOf("first", code), await answerOf("data", code)]
    expect([first, data]).toEqual([expect.stringMatching(/, None\]$/), expect.stringMatching(/, 'me'\]$/)])
    const numbers = [first, data].map((text) => text.split(", ").slice(0, 2))
    expect(new Set(numbers.flat()).size).toBe(4)
    const fork = await own.bhatti(["create", "--name", "fork", "--from", "data"], { deadlineMs })
    expect(fork.exitCode).toBe(0)
    await own.bhatti(["publish", "fork", "-p", String(port), "-a", "fork"])
    expect(await answerOf("fork", "random.random()")).not.toBe(await answerOf("data", "random.random()"))
    await own.bhatti(["destroy", "fork", "first", "--yes"])
  }, 300_000)

  test("output, pictures, errors and the variables of one execution reach the client", async () => {
    const out = await run("data", "import sys; print('out'); print('err', file=sys.stderr)")
    expect(out.filter(({ text }) => text !== undefined)).toMatchObject([
      { type: "stdout", text: "out\n" },
      { type: "stderr", text: "err\n" },
    ])
    expect(out.at(-1)).toEqual({ type: "end_of_execution" })
    const plot = await run("data", "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
    expect(plot.find(({ png }) => png !== undefined)?.png).toStartWith("iVBOR")
    expect(await run("data", "1/0")).toContainEqual(
      expect.objectContaining({ type: "error", name: "ZeroDivisionError", value: "division by zero" }),
    )
    const own = await answerOf("data", "(os.environ['WHO'], os.environ['ONE'])", {
      env_vars: { WHO: "you", ONE: "1" },
    })
    expect(own).toBe("('you', '1')")
    expect(await answerOf("data", "(os.environ['WHO'], os.environ.get('ONE'))")).toBe("('me', None)")
  }, 120_000)

  test.skipIf(!isLong)(
    "a context has variables of its own, until it is removed; what there is not is refused",
    async () => {
      const made = (await (await call("data", "/contexts", { cwd: "/tmp" })).json()) as { id: string }
      expect(made).toMatchObject({ language: "python", cwd: "/tmp" })
      const inside = { context_id: made.id }
      await run("data", "x = 1")
      expect(await answerOf("data", "import os; ['x' in dir(), os.getcwd()]", inside)).toBe("[False, '/tmp']")
      const listed = async () => (await (await call("data", "/contexts")).json()) as { id: string }[]
      expect((await listed()).map(({ id }) => id)).toEqual(["default", made.id])
      expect((await call("data", "/contexts/default/restart", {})).status).toBe(204)
      expect(await answerOf("data", "'x' in dir()")).toBe("False")
      expect((await call("data", `/contexts/${made.id}`, undefined, { method: "DELETE" })).status).toBe(204)
      const refused = [
        { code: "1", ...inside },
        { code: "1", language: "r" },
        { code: 1 },
        { code: "1", env_vars: { A: 1 } },
      ].map(async (body) => (await call("data", "/execute", body)).status)
      expect(await Promise.all(refused)).toEqual([404, 400, 400, 400])
    },
    300_000,
  )

  test.skipIf(!isLong)(
    "code is interrupted when its client leaves, and a kernel that dies is told and replaced",
    async () => {
      const left = new AbortController()
      const going = call(
        "data",
        "/execute",
        { code: "import time; y = 1; time.sleep(1000)" },
        { signal: left.signal },
      )
      const reader = (await going).body?.getReader()
      await reader?.read()
      left.abort()
      expect(await answerOf("data", "y")).toBe("1")
      const died = await run("data", "import os; os.kill(os.getpid(), 9)")
      expect(died.map(({ type, name }) => name ?? type)).toContain("KernelDied")
      expect(await answerOf("data", "'y' in dir()")).toBe("False")
    },
    300_000,
  )

  test.skipIf(!isLong)(
    "it goes on after a stop, and is started again by a boot",
    async () => {
      await run("data", "z = 5")
      await own.bhatti(["stop", "data"])
      expect(await answerOf("data", "z")).toBe("5")
      expect((await own.bhatti(["restart", "data"], { deadlineMs })).exitCode).toBe(0)
      await until("it serves again", async () => (await call("data", "/health")).ok, { deadlineMs: 120_000 })
      expect(await answerOf("data", "__import__('os').environ['WHO']")).toBe("'me'")
    },
    400_000,
  )
})
