/** Processes of a guest of generation 2, beyond what the vectors and the recorded conversations show. */

import { expect, test } from "bun:test"
import { EarlierProcesses } from "./generation-2.ts"
import type { Requests } from "./process.ts"

const session = { id: "s1", name: null, argv: ["sh"], pid: 7, created_unix_ms: 1, attached: false }
const running = { ...session, state: "running", exit_code: null, signal: null }
const ended = { ...session, state: "ended", exit_code: 137, signal: "KILL" }

/** A guest that lists these sessions, one list after the other, the last one again and again. */
function listing(...lists: object[][]): { processes: EarlierProcesses; asked: () => number } {
  let count = 0
  const requests = {
    begin: () => {
      throw new Error("no stream is needed")
    },
    request: async (_request: object, { parse }: { parse: (value: unknown) => unknown }) => {
      const sessions = lists[Math.min(count++, lists.length - 1)]
      return parse({ sessions })
    },
  }
  return { processes: new EarlierProcesses(requests as unknown as Requests), asked: () => count }
}

test("a session is waited for by asking until it has ended", async () => {
  const { processes, asked } = listing([running], [running], [ended])
  expect(await processes.wait("s1").result).toMatchObject({ id: "s1", ended: { exitCode: 137 } })
  expect(asked()).toBe(3)
})

test("a session that is not there ends the wait, and so does its client", async () => {
  await expect(listing([]).processes.wait("s1").result).rejects.toMatchObject({ code: "not_found" })
  const waiting = listing([running]).processes.wait("s1")
  waiting.close()
  await expect(waiting.result).rejects.toMatchObject({ code: "unavailable" })
})
