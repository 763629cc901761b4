/** A watch of a guest that is played: a test tells its events. */

import type { FileEvent, FileEvents } from "@bhatti/contract/guest"

/** So many confirmed events stay for a reader that asks with a lower number. */
const confirmedKept = 1024

export class FakeWatch {
  readonly path: string
  readonly recursive: boolean
  #events: FileEvent[] = []
  #last = 0
  /** The number up to which a reader has confirmed what it had. */
  #taken = 0
  #wake: (() => void) | undefined
  ended: string | null = null

  constructor(options: { path: string; recursive: boolean }) {
    this.path = options.path
    this.recursive = options.recursive
  }

  copy(): FakeWatch {
    const copy = new FakeWatch(this)
    copy.#events = [...this.#events]
    copy.#last = this.#last
    copy.#taken = this.#taken
    return copy
  }

  tell(event: Partial<FileEvent>): void {
    const sequence = ++this.#last
    this.#events.push({
      type: "create",
      path: "x",
      to: null,
      isDirectory: false,
      reason: null,
      ...event,
      sequence,
    })
    this.interrupt()
  }

  end(reason: string): void {
    this.ended = reason
    this.interrupt()
  }

  /** Answers the reader that waits. */
  interrupt(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  read(after: number): FileEvents {
    this.#taken = Math.max(this.#taken, after)
    this.#events = this.#events.filter(({ sequence }) => sequence > this.#taken - confirmedKept)
    const firstKept = this.#events[0]?.sequence ?? this.#last + 1
    const lost: FileEvent = {
      ...{ type: "lost", path: ".", to: null, isDirectory: true },
      ...{ reason: "another reader has confirmed them", sequence: firstKept - 1 },
    }
    const kept = this.#events.filter(({ sequence }) => sequence > after)
    const isLost = after < firstKept - 1
    return { events: isLost ? [lost, ...kept] : kept, next: this.#last, ended: this.ended }
  }

  async wait(after: number): Promise<FileEvents> {
    const { events, ended } = this.read(after)
    if (events.length === 0 && ended === null) {
      this.interrupt()
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.read(after)
  }
}
