/** The processes of a guest that is played, as the host asks about them over one channel. */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessAttach, ProcessRecord, ProcessSignal, ProcessStart } from "@bhatti/contract/guest"
import type { GuestProcess, GuestProcesses } from "../../src/core/host.ts"
import type { FakeHost } from "./fake-host.ts"
import { type FakeClient, FakeProcess, playedClient } from "./fake-process.ts"
import { programs, refusalOf, sessionPrograms } from "./fake-programs.ts"
import type { FakeMemory } from "./fake-systems.ts"

type Guest = {
  host: FakeHost
  memory: () => FakeMemory
  /** Waits until the guest answers, and throws why it refuses. */
  answer: (options: { deadlineMs: number }) => Promise<FakeMemory>
  /** Why it refuses what needs an identity, or that directory. */
  refusal: (cwd: string) => AppError | undefined
  /** Counts a command until its end, and breaks its client when the channel is lost. */
  goesOn: (ended: Promise<unknown>, client: Pick<FakeClient, "lose"> | undefined) => void
}

export function fakeProcesses(guest: Guest): GuestProcesses {
  const { host } = guest
  const find = (wanted: string): FakeProcess => {
    const known = guest
      .memory()
      .processes.filter(({ id, command }) => id === wanted || command.name === wanted)
    const found = known.find(({ end_ }) => !end_) ?? known.at(-1)
    if (!found) throw new AppError("not_found", `no process "${wanted}"`)
    return found
  }

  const begin = (start: ProcessStart): { process: FakeProcess; isNew: boolean } => {
    const memory = guest.memory()
    const known =
      start.key === undefined ? undefined : memory.processes.find(({ command }) => command.key === start.key)
    if (known) {
      if (known.command.argv.join("\0") !== start.argv?.join("\0"))
        throw new AppError("conflict", "another command has this key", { reason: "key_reused" })
      return { process: known, isNew: false }
    }
    const isSession = start.tty !== undefined && start.onDisconnect === "keep"
    const argv = start.argv ?? ["bash", "-l"]
    const refused = guest.refusal(start.cwd ?? "/workspace") ?? (isSession ? undefined : refusalOf(argv))
    if (refused) throw refused
    const kind = isSession ? "s" : "p"
    const id = `${kind}${++memory.counts[kind]}`
    const env = { ...memory.env, ...start.env }
    const process = new FakeProcess(id, { ...start, argv, env })
    memory.processes.push(process)
    host.processes.push(process)
    process.isReplayed = !isSession || host.sessionProgram === "echo"
    const program = isSession ? sessionPrograms[host.sessionProgram] : programs[argv[0] ?? ""]
    if (program) process.run(program)
    const isForgotten = (start.retainMs ?? 0) === 0
    const forget = () => {
      if (isForgotten) memory.processes = memory.processes.filter((one) => one !== process)
    }
    process.ended.then(forget)
    return { process, isNew: true }
  }

  return {
    start(start): GuestProcess {
      try {
        const { process, isNew } = begin(start)
        const client = process.attach({ mode: "drive", ...start }, isNew)
        guest.goesOn(isNew ? process.ended : client.result, client)
        return client
      } catch (error) {
        return playedClient((async function* () {})(), Promise.reject(error))
      }
    },

    async startDetached(start, options) {
      await guest.answer(options)
      const { process, isNew } = begin(start)
      return { process: process.record(), isNew }
    },

    attach(options: ProcessAttach): GuestProcess {
      try {
        const process = find(options.process)
        if (options.follow === false && options.from === undefined && process.id.startsWith("s")) {
          const shown = host.shownBy(options.process)
          const bytes = (async function* () {
            yield* shown
          })()
          return playedClient(bytes, Promise.resolve({ state: "left" }))
        }
        const client = process.attach(options)
        guest.goesOn(client.result, client)
        return client
      } catch (error) {
        return playedClient((async function* () {})(), Promise.reject(error))
      }
    },

    async list(options): Promise<ProcessRecord[]> {
      const { processes } = await guest.answer(options)
      return processes.map((process) => process.record())
    },

    async get(process, options): Promise<ProcessRecord> {
      await guest.answer(options)
      return find(process).record()
    },

    wait(wanted) {
      const { promise: result, resolve, reject } = Promise.withResolvers<ProcessRecord>()
      result.catch(() => undefined)
      try {
        const process = find(wanted)
        process.ended.then(() => resolve(process.record()), reject)
        guest.goesOn(result, { lose: reject })
      } catch (error) {
        reject(error)
      }
      return { result, close() {} }
    },

    async signal(wanted: string, signal: ProcessSignal): Promise<void> {
      const process = find(wanted)
      host.killed.push({ session: wanted, signal: signal.signal })
      process.signal(signal)
    },

    input(wanted, { at, close }) {
      const taken = Promise.withResolvers<{ input: number }>()
      let skipped = 0
      const settle = () => {
        try {
          const process = find(wanted)
          if (process.isInputStuck) return
          if (close) process.endInput()
          taken.resolve({ input: process.inputBytes })
        } catch (error) {
          taken.reject(error)
        }
      }
      taken.promise.catch(() => undefined)
      return {
        result: taken.promise,
        async write(bytes: Uint8Array) {
          const process = find(wanted)
          if (at !== undefined && skipped === 0) skipped = process.inputBytes - at
          if (skipped < 0) throw new AppError("conflict", "bytes before these are missing")
          const rest = bytes.subarray(Math.min(skipped, bytes.length))
          skipped -= bytes.length - rest.length
          if (rest.length > 0) process.type(rest)
        },
        endInput: settle,
        close: () => void find(wanted).closedInputs++,
      }
    },

    async resize(wanted, size): Promise<void> {
      find(wanted).resize(size)
    },

    async forget(wanted): Promise<void> {
      const process = find(wanted)
      if (!process.end_) throw new AppError("conflict", `process "${wanted}" still runs`)
      const memory = guest.memory()
      memory.processes = memory.processes.filter((one) => one !== process)
    },
  }
}
