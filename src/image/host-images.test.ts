/** The process that makes an image of the host: its steps, its failures, its end. A shell script is in its place. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { until } from "../../test/support/installation.ts"
import { identityOf, isAlive } from "../lib/process-identity.ts"
import { installHostImage } from "./host-images.ts"

let dir: string
beforeEach(() => {
  dir = mkdtempSync("/tmp/bhatti-host-images-")
})
afterEach(() => rmSync(dir, { recursive: true }))

/** In place of the program itself. */
function program(script: string): string[] {
  const path = join(dir, "program")
  writeFileSync(path, script)
  return ["sh", path]
}

async function install(script: string, signal = new AbortController().signal): Promise<string[]> {
  const steps: string[] = []
  const options = { dataDir: "/data", cacheDir: "/cache", program: program(script) }
  await installHostImage(options, "docker", { signal, onStep: (words) => steps.push(words) })
  return steps
}

test("the program is told which image, and each of its lines is a step", async () => {
  expect(await install('echo "$*" >&2; echo "  a step  " >&2; printf "the end" >&2')).toEqual([
    "init --data-dir /data --cache-dir /cache --image docker --image-only",
    "a step",
    "the end",
  ])
})

test("a failure has the program's reason and not its advice", async () => {
  expect(
    install('echo "bhatti: no mirror answers" >&2; echo "  try: later" >&2; exit 1'),
  ).rejects.toMatchObject({
    code: "unavailable",
    message: 'image "docker" could not be made: no mirror answers',
  })
  expect(install("exit 3")).rejects.toMatchObject({ message: expect.stringContaining("exit code 3") })
})

test("an abort ends the program and those that it has started", async () => {
  const stop = new AbortController()
  const pids = join(dir, "pids")
  const running = install(`sleep 1000 & echo $! > ${pids}.part; mv ${pids}.part ${pids}; wait`, stop.signal)
  running.catch(() => undefined)
  await until("it has started another", () => Bun.file(pids).size > 0)
  const pid = Number(readFileSync(pids, "utf8"))
  const started = identityOf(pid)
  if (!started) throw new Error("it has ended by itself")
  stop.abort(new Error("not wanted"))
  expect(running).rejects.toThrow("not wanted")
  await running.catch(() => undefined)
  await until("that one has ended", () => !isAlive(started))
})
