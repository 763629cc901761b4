/** The connections to QEMU's monitors: one per machine, opened when needed and kept. */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { isAlive } from "../lib/process-identity.ts"
import { watchEnd } from "./guest-end.ts"
import { killProcess } from "./process.ts"
import { Qmp } from "./qmp.ts"
import { qmpSocket } from "./sockets.ts"
import type { Machine } from "./starter.ts"

const qmpDeadlineMs = 10_000
/** Limit on the guest's console in the log. */
const consoleBytes = 8192
const killDeadlineMs = 10_000
const refusedPauseMs = 20

export class Monitors {
  readonly #monitors = new Map<number, Promise<Qmp>>()

  /** Keeps one connection per machine: a monitor serves one client at a time. */
  async of(machine: Machine): Promise<Qmp> {
    const { pid } = machine.process
    const known = await this.#monitors.get(pid)?.catch(() => undefined)
    if (known && !known.isClosed) return known
    const opening = this.#openMonitor(machine)
    this.#monitors.set(pid, opening)
    opening.catch(() => this.#monitors.delete(pid))
    return opening
  }

  async #openMonitor(machine: Machine): Promise<Qmp> {
    const monitor = await openMonitor(machine)
    if (!(await watchEnd(machine, monitor, () => this.#endMachine(machine)))) return monitor
    throw new AppError("unavailable", "the machine was ended by its guest")
  }

  /** The guest has ended the machine. Other code sees the end of the process. */
  async #endMachine(machine: Machine): Promise<void> {
    this.forget(machine)
    await killProcess(machine.process, { deadlineMs: killDeadlineMs }).catch(() => undefined)
  }

  forget(machine: Machine): void {
    const monitor = this.#monitors.get(machine.process.pid)
    this.#monitors.delete(machine.process.pid)
    monitor?.then(
      (qmp) => qmp.close(),
      () => undefined,
    )
  }

  async readConsole(machine: Machine): Promise<string> {
    if (!isAlive(machine.process)) return ""
    try {
      const monitor = await this.of(machine)
      return String(
        await monitor.command(
          "ringbuf-read",
          { device: "console", size: consoleBytes },
          { deadlineMs: 2000 },
        ),
      )
    } catch (error) {
      if (error instanceof AppError) return ""
      throw error
    }
  }
}

/** Retries while the socket's queue is full of abandoned connections that QEMU has not accepted yet. */
async function openMonitor(machine: Machine): Promise<Qmp> {
  const endMs = performance.now() + qmpDeadlineMs
  for (;;) {
    try {
      return await Qmp.open({ socketPath: qmpSocket(machine.directory), deadlineMs: qmpDeadlineMs })
    } catch (error) {
      const isRefused = error instanceof AppError && errorCodeOf(error.cause) === "ECONNREFUSED"
      if (!isRefused || !isAlive(machine.process) || performance.now() > endMs) throw error
      await Bun.sleep(refusedPauseMs)
    }
  }
}
