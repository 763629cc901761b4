/** How a guest has ended its machine, as a QEMU that is played tells it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Socket } from "bun"
import { readEnd, watchEnd } from "./guest-end.ts"
import { Qmp } from "./qmp.ts"

const process = { pid: 1, startTicks: 1, bootId: "boot" }

let directory: string
let stop: () => void
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-ends-")
})
afterEach(() => {
  stop()
  rmSync(directory, { recursive: true, force: true })
})

/** Tells of the guest's end before it answers that command. */
async function openMonitor(endsBefore: string, reason: string, words = "the console"): Promise<Qmp> {
  const socketPath = join(directory, "qmp.sock")
  let status = "running"
  const answer = (socket: Socket, execute: string, id: string) => {
    const say = (message: object) => socket.write(`${JSON.stringify(message)}\n`)
    if (execute === endsBefore) {
      status = "shutdown"
      say({ event: "SHUTDOWN", data: { guest: true, reason } })
    }
    const given = { "query-status": { status, running: false }, "ringbuf-read": words }[execute] ?? {}
    say({ return: given, id })
  }
  const listener = Bun.listen({
    unix: socketPath,
    socket: {
      open: (socket) => void socket.write('{"QMP": {"version": {}, "capabilities": []}}\n'),
      data(socket, bytes) {
        for (const line of bytes.toString().trim().split("\n")) {
          const { execute, id } = JSON.parse(line) as { execute: string; id: string }
          answer(socket, execute, id)
        }
      },
    },
  })
  stop = () => listener.stop(true)
  return Qmp.open({ socketPath, deadlineMs: 5000 })
}

test.each(["set-action", "query-status"])(
  "a reboot inside while its monitor is opened, before %s is answered, is a reboot and ends the machine once",
  async (endsBefore) => {
    const monitor = await openMonitor(endsBefore, "guest-reset")
    let ends = 0
    const hasEnded = await watchEnd({ process, directory }, monitor, async () => {
      ends++
    })
    expect([hasEnded, ends]).toEqual([true, 1])
    expect(await readEnd(directory)).toMatchObject({ how: "reboot", console: "the console" })
  },
)

test("of a console of any length the last 16,384 characters are kept, and only of the last end", async () => {
  for (const word of ["first", "last"]) {
    const monitor = await openMonitor("query-status", "guest-reset", "x".repeat(65_000) + word)
    await watchEnd({ process, directory }, monitor, async () => undefined)
    monitor.close()
    stop()
    rmSync(join(directory, "qmp.sock"), { force: true })
  }
  const end = await readEnd(directory)
  expect(end?.console).toMatch(/^x+last$/)
  expect(end?.console).toHaveLength(16_384)
  const [file, ...others] = readdirSync(directory)
  expect(others).toEqual([])
  expect(statSync(join(directory, file ?? "")).size).toBeLessThan(17_000)
})
