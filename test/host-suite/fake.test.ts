/** Runs the cases of `cases.ts` on the fake host. */

import { describe } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import type { Guest, TemplateSpec } from "../../src/core/host.ts"
import { fakeHost } from "../support/fake-host.ts"
import { type GuestSubject, guestCases, type Left, powerCases } from "./cases.ts"

async function open(): Promise<GuestSubject> {
  const host = fakeHost()
  const [image, kernel] = await Promise.all([
    host.images.readImage(limits.imageDefault),
    host.images.readKernel(),
  ])
  const spec: TemplateSpec = { image, kernel, cpus: 1, memoryMib: 512 }
  await using draft = await host.templates.begin(spec)
  const template = await draft.commit()
  return {
    host: () => host,
    template: async () => template,
    // The fake host outlives every daemon.
    restart: async () => undefined,
    leave,
    read,
    both: ["warn"],
    flood: (bytes) => ["flood", `${bytes}`],
    [Symbol.asyncDispose]: async () => undefined,
  }
}

/** A session lives in memory only. */
async function leave(guest: Guest, { memory, disk }: Left): Promise<void> {
  const start = { name: memory, tty: { rows: 24, cols: 80 }, onDisconnect: "keep" } as const
  await guest.processes.startDetached(start, { deadlineMs: 1000 })
  const transfer = guest.open({ op: "writeFile", path: "/workspace/left" })
  await transfer.write(Buffer.from(disk))
  transfer.endInput()
  await transfer.result
}

async function read(guest: Guest): Promise<Left> {
  let disk = ""
  for await (const bytes of guest.open({ op: "readFile", path: "/workspace/left" }).output)
    disk += Buffer.from(bytes).toString()
  return { memory: (await guest.processes.list({ deadlineMs: 1000 })).at(-1)?.name ?? "", disk }
}

describe("power", () => powerCases(open))
describe("guest", () => guestCases(open))
