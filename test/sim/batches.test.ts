/** The daemon dies at every step of a batch: the next one has all of its sandboxes or nothing of them. */

import { expect, test } from "bun:test"
import { newCore } from "../../src/core/assemble.ts"
import type { Core } from "../../src/core/core.ts"
import { createSandbox } from "../../src/core/create.ts"
import { createSandboxes } from "../../src/core/create-several.ts"
import type { Host } from "../../src/core/host.ts"
import { reconcile } from "../../src/core/reconcile.ts"
import { openStore, type Store } from "../../src/store/store.ts"
import { Life, SimulatedTime, settle } from "./life.ts"
import { World } from "./world.ts"

const stepsMax = 1000
/** Each step in the long form. */
const stride = process.env["BHATTI_TEST_LONG"] === "1" ? 1 : 3

/** A call to the store is a step too: the daemon may die before and after it. */
function sandboxesOf(store: Store, life: Life): Store["sandboxes"] {
  return new Proxy(store.sandboxes, {
    get: (target, property) => {
      const method: unknown = Reflect.get(target, property, target)
      if (typeof method !== "function") return method
      return async (...parameters: unknown[]) => {
        await life.step(`${String(property)}`)
        const result: unknown = await method.apply(target, parameters)
        await life.step(`${String(property)} done`)
        return result
      }
    },
  })
}

class Daemon {
  readonly life = new Life()
  readonly core: Core

  constructor(store: Store, world: World, time: SimulatedTime, adapt: (host: Host) => void) {
    const host = world.host(this.life)
    adapt(host)
    this.core = newCore({
      store: { ...store, sandboxes: sandboxesOf(store, this.life) },
      host,
      log: { info() {}, warn() {}, error() {} },
      clock: time.clockOf(this.life),
      settings: {
        thermal: { warmAfterMs: 30_000, coldAfterMs: 60_000, timerWindowMs: 60_000 },
        diskReserveMib: 1024,
        memoryReserveMib: 512,
        templateDiskMib: 8192,
        pool: { sizeMax: 0, memoryMibMax: 1024 },
        publicAddress: { scheme: "http", domain: "localhost", port: 8080 },
        guestDefaults: {},
      },
    })
  }

  /**
   * Goes on for so many steps, with what began last, so that one is made after the other; false: nothing waits any more
   * before that.
   */
  async goOn(steps: number): Promise<boolean> {
    for (let step = 0; step < steps; step++) {
      await settle()
      if (this.life.waiting.length === 0) return false
      this.life.take(this.life.waiting.length - 1).go()
    }
    return true
  }

  async finish<T>(work: Promise<T>): Promise<T> {
    if (await this.goOn(stepsMax)) throw new Error("it does not end")
    return work
  }
}

const ways = [
  { way: "created", from: undefined, adapt: () => undefined },
  { way: "forked", from: "source", adapt: () => undefined },
  {
    way: "forked without their memory",
    from: "source",
    adapt: ({ machines }: Host) => {
      machines.checkSnapshot = async () => ({ fits: false, reason: "it does not fit" })
    },
  },
]

test.each(ways)(
  "sandboxes that are $way together: all or none, wherever the daemon dies",
  async ({ from, adapt }) => {
    const left: number[] = []
    for (let steps = 0; ; steps += stride) {
      const violations: string[] = []
      const time = new SimulatedTime()
      const world = new World({ time, violation: (what) => violations.push(what), onSpawn: () => undefined })
      await using undo = new AsyncDisposableStack()
      const store = await openStore({ memory: true })
      undo.defer(() => store.close())
      const { key } = await store.users.create({ name: "alice", maxSandboxes: 10 })
      const account = await store.users.findByKey(key)
      if (!account) throw new Error("no account")

      const first = new Daemon(store, world, time, adapt)
      await first.finish(createSandbox(first.core, account, { name: "source" }))
      const input = { name: "w", ...(from !== undefined && { from }) }
      createSandboxes(first.core, account, input, { count: 3 }).catch(() => undefined)
      const isCut = await first.goOn(steps)
      first.life.end()
      world.onDaemonEnd(first.life)

      const next = new Daemon(store, world, time, () => undefined)
      await next.finish(reconcile(next.core).then(({ settled }) => settled))
      const names = (await store.sandboxes.listOnHost()).map(({ name }) => name)
      expect([steps, names]).toEqual([steps, names.length > 1 ? ["source", "w-1", "w-2", "w-3"] : ["source"]])
      expect([world.processes.size, world.directories.size]).toEqual([names.length, names.length])
      expect(violations).toEqual([])
      left.push(names.length)
      next.life.end()
      if (!isCut) break
    }
    expect([left[0], left.at(-1), left.length > 20]).toEqual([1, 4, true])
  },
  60_000,
)
