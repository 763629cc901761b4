/** Standard output that leads into a real pipe, from a process of the test's own. */

import { expect, test } from "bun:test"
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { until } from "../support/installation.ts"

const writesForEver = `
import { Output } from ${JSON.stringify(join(import.meta.dir, "../../src/cli/output.ts"))}
process.on("SIGTERM", () => process.exit(7))
const { stdout } = new Output()
for (;;) await stdout.write(new Uint8Array(30_000))
`

test("a process whose output nobody reads still receives signals", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-output-"))
  try {
    const [program, pipe] = [join(directory, "program.ts"), join(directory, "pipe")]
    writeFileSync(program, writesForEver)
    Bun.spawnSync(["mkfifo", pipe])
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    const writer = openSync(pipe, "w")
    const child = Bun.spawn([process.execPath, program], { stdout: writer, stderr: "inherit" })
    closeSync(writer)
    const written = () => Number(/^wchar: (\d+)/m.exec(readFileSync(`/proc/${child.pid}/io`, "utf8"))?.[1])
    // The pipe holds 64 KiB.
    await until("the pipe is full", () => written() >= 60_000)
    child.kill("SIGTERM")
    await until("it has ended", () => child.exitCode !== null, { deadlineMs: 10_000 }).finally(() =>
      child.kill("SIGKILL"),
    )
    expect(child.exitCode).toBe(7)
    closeSync(reader)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
