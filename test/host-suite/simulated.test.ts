/** Runs the power cases of `cases.ts` on the simulation's host, whose guests run commands only. */

import { describe } from "bun:test"
import type { Guest } from "../../src/core/host.ts"
import { Life, SimulatedTime, settle } from "../sim/life.ts"
import { World } from "../sim/world.ts"
import { type Left, powerCases, type Subject } from "./cases.ts"

async function open(): Promise<Subject> {
  const time = new SimulatedTime()
  // The suite itself does what no core may.
  const world = new World({ time, violation: () => undefined, onSpawn: () => undefined })
  let life = new Life()
  let host = world.host(life)
  let isOver = false
  const goOn = async () => {
    while (!isOver) {
      if (life.waiting.length > 0) life.take(0).go()
      await settle()
    }
  }
  void goOn()
  const spec = {
    image: { name: "minimal", hash: "image", diskMib: 8192 },
    kernel: { hash: "kernel" },
    cpus: 1,
    memoryMib: 512,
  }
  await using draft = await host.templates.begin(spec)
  const template = await draft.commit()
  return {
    host: () => host,
    template: async () => template,
    async restart() {
      life.end()
      world.onDaemonEnd(life)
      life = new Life()
      host = world.host(life)
    },
    leave,
    read,
    async [Symbol.asyncDispose]() {
      isOver = true
    },
  }
}

async function leave(guest: Guest, { memory, disk }: Left): Promise<void> {
  await guest.processes.start({ onDisconnect: "kill", argv: ["mark", memory] }).result
  await guest.processes.start({ onDisconnect: "kill", argv: ["write", disk] }).result
}

async function read(guest: Guest): Promise<Left> {
  let text = ""
  for await (const { bytes } of guest.processes.start({ onDisconnect: "kill", argv: ["look"] }).output)
    text += Buffer.from(bytes).toString()
  const { marker, file } = JSON.parse(text) as { marker: string; file: string }
  return { memory: marker, disk: file }
}

describe("power", () => powerCases(open))
