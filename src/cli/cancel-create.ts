/**
 * Ctrl-C and SIGTERM while sandboxes are being created: the creation is rolled back.
 *
 *   1st signal ──► we wait for the daemon's answer, destroy the new sandboxes ──► and exit 130 or 143
 *   2nd signal ──► we exit as soon as our requests are sent; the daemon rolls back a create whose client has left
 */

import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Client } from "@bhatti/sdk/client"
import type { Output } from "./output.ts"
import { onSignals, signalExitCodes } from "./signals.ts"

/** After the second signal: for an answer that has arrived already, and for our requests to arrive. */
const answerMs = 50
const requestMs = 1000

export type Made = { sandboxes: readonly Sandbox[]; isNew: boolean }

/**
 * Returns the result, or the exit code of the signal that interrupted it. The signal of `make` aborts its request: from
 * then on the answer cannot arrive.
 */
export async function createOrRollBack(
  { client, out }: { client: Client; out: Output },
  make: (signal: AbortSignal) => Promise<Made>,
): Promise<Made | { exitCode: number }> {
  using signals = new Signals(() => out.talk("cancelling; Ctrl-C again leaves that to the daemon"))
  const leaving = new AbortController()
  const making = make(leaving.signal)
  const made = (await signals.unlessTwice(making)) ?? (await lastAnswer(making, leaving))
  if (signals.exitCode === undefined && made) return made
  const exitCode = signals.exitCode ?? 0
  if (!made) await out.talk("left before the answer: the daemon removes what was made; to check: bhatti list")
  else if (!made.isNew) await out.talk("cancelled; the sandbox was there before, and stays")
  else await destroyAll(made.sandboxes, { client, out, signals })
  return { exitCode }
}

/** After the second signal: the answer if it has arrived, or undefined once it no longer can. */
async function lastAnswer(making: Promise<Made>, leaving: AbortController): Promise<Made | undefined> {
  const made = await Promise.race([making, Bun.sleep(answerMs)])
  if (made) return made
  leaving.abort()
  return await making.catch(() => undefined)
}

async function destroyAll(
  sandboxes: readonly Sandbox[],
  { client, out, signals }: { client: Client; out: Output; signals: Signals },
): Promise<void> {
  const destroying = sandboxes.map(async ({ id, name }) => {
    await client.destroySandbox({ params: { id } })
    await out.talk(`sandbox/${name} destroyed: its create was cancelled`)
  })
  const all = Promise.all(destroying)
  if (await signals.unlessTwice(all)) return
  // A destroy goes on in the daemon once the request has arrived.
  if (!(await Promise.race([all, Bun.sleep(requestMs)]))) await out.talk("the daemon removes what was made")
}

class Signals implements Disposable {
  exitCode: number | undefined
  isTwice = false
  readonly #twice = Promise.withResolvers<undefined>()
  readonly #listening: Disposable

  constructor(onFirst: () => Promise<void>) {
    this.#listening = onSignals(["SIGINT", "SIGTERM"], (signal) => {
      if (this.exitCode !== undefined) {
        this.isTwice = true
        return this.#twice.resolve(undefined)
      }
      this.exitCode = signalExitCodes[signal]
      void onFirst()
    })
  }

  unlessTwice<T>(promise: Promise<T>): Promise<T | undefined> {
    return Promise.race([promise, this.#twice.promise])
  }

  [Symbol.dispose](): void {
    this.#listening[Symbol.dispose]()
  }
}
