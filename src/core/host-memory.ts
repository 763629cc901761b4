/**
 * Admission by the host's memory, checked before any start. A start in progress has not touched all its memory yet, so
 * it holds a promise until it is over; afterwards the host's own figures count.
 */

import { AppError } from "@bhatti/contract/errors"
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

  /** True if so little memory is free that room should be made. */
  get isShort(): boolean {
    return this.#reserveMib > 0 && this.#machines.availableMemoryMib() < shortMib(this.#reserveMib)
  }

  /** Reserves memory until the result is disposed. Throws if the host has no room for it. */
  promise(neededMib: number): Disposable {
    return this.#promise(neededMib, this.#reserveMib)
  }

  /** Reserves memory for background work, which must not make memory short. */
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
          reason: "host_memory",
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
