/** Runs the cases of `test/host-suite/cases.ts` on the real adapters: QEMU, files, packets. */

import { describe } from "bun:test"
import { loadConfig } from "../../src/config.ts"
import type { Guest } from "../../src/core/host.ts"
import { templateSpec } from "../../src/core/template.ts"
import { ensureTemplate } from "../../src/core/template-builds.ts"
import { openCore } from "../../src/daemon.ts"
import { type GuestSubject, guestCases, type Left, powerCases } from "../host-suite/cases.ts"
import { install } from "../support/installation.ts"

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined }

/** An installation without its daemon: the test stands in the daemon's place. */
async function open(): Promise<GuestSubject> {
  const own = await install()
  await own.stopDaemon("SIGTERM")
  const config = loadConfig({ dataDir: own.dataDir }, {})
  let opened = await openCore(config, quiet)
  await opened.core.host.network?.resync([])
  return {
    host: () => opened.core.host,
    template: async () => ensureTemplate(opened.core, await templateSpec(opened.core)),
    async restart() {
      await opened.network?.close()
      await opened[Symbol.asyncDispose]()
      opened = await openCore(config, quiet)
    },
    leave,
    read,
    both: ["sh", "-c", "echo out; echo err >&2"],
    flood: (bytes) => ["head", "-c", `${bytes}`, "/dev/zero"],
    async [Symbol.asyncDispose]() {
      await opened.network?.close()
      await opened[Symbol.asyncDispose]()
      await own[Symbol.asyncDispose]()
    },
  }
}

async function run(guest: Guest, argv: string[]): Promise<string> {
  const process = guest.processes.start({ onDisconnect: "kill", argv, user: "root" })
  let text = ""
  for await (const { bytes } of process.output) text += Buffer.from(bytes).toString()
  await process.result
  return text
}

/** A file below /dev/shm lives in memory only. */
async function leave(guest: Guest, { memory, disk }: Left): Promise<void> {
  await run(guest, ["sh", "-c", `echo "$0" > /dev/shm/left; echo "$1" > /workspace/left; sync`, memory, disk])
}

async function read(guest: Guest): Promise<Left> {
  const [memory = "", disk = ""] = (await run(guest, ["cat", "/dev/shm/left", "/workspace/left"])).split("\n")
  return { memory, disk }
}

describe("power", () => powerCases(open))
describe("guest", () => guestCases(open))
