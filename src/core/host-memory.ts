/**
 * The host's memory, asked before anything takes of it. A start that is going on has not touched all that it will, so it holds a
 * promise until it is over; from then on the host itself says what is left.
 */

import { AppError } from "../contract/errors.ts"
import { hasRoom, shortMib } from "../rules/host-memory.ts"
import type { Machines } from "./host.ts"

/** By then idle sandboxes may have been written to disk. */
const retryAfterSec = 10

export class HostMemory {
  readonly #machines: Machines
  readonly #reserveMib: number
  #promisedMib = 0

  constructor(machines: Machines, options: { reserveMib: number }) {
    this.#machines = machines
    this.#reserveMib = options.reserveMib
  }

  /** Whether there is so little that room should be made. */
  get isShort(): boolean {
    return this.#reserveMib > 0 && this.#machines.availableMemoryMib() < shortMib(this.#reserveMib)
  }

  /** Held until what it returns is disposed. Throws where the host has no room for it. */
  promise(neededMib: number): Disposable {
    return this.#promise(neededMib, this.#reserveMib)
  }

  /** Of what nobody waits for: it must not make memory short. */
  promiseSpare(neededMib: number): Disposable {
    return this.#promise(neededMib, shortMib(this.#reserveMib))
  }

  #promise(neededMib: number, keptMib: number): Disposable {
    const availableMib = this.#machines.availableMemoryMib()
    const facts = { availableMib, promisedMib: this.#promisedMib, reserveMib: this.#reserveMib }
    if (!hasRoom(facts, neededMib, keptMib)) {
      const freeMib = Math.max(0, availableMib - this.#promisedMib)
      throw new AppError(
        "unavailable",
        `the host is short of memory: ${neededMib} MB are needed at once, and of ${freeMib} MB available ${keptMib} MB are kept free`,
        {
          hint: "stop or destroy a sandbox, or try again when idle ones are on disk; the operator sets memory_reserve_mb in config.yaml",
          retryAfterSec,
        },
      )
    }
    this.#promisedMib += neededMib
    return {
      [Symbol.dispose]: () => {
        this.#promisedMib -= neededMib
      },
    }
  }
}
