/** Saves all running sandboxes to disk when the daemon stops, unless they may run on. */

import { AppError } from "@bhatti/contract/errors"
import type { Core, ForChannel } from "./core.ts"
import { inParallel } from "./in-parallel.ts"
import { stopSandbox } from "./power.ts"

/** Writing is limited by the disk; more at once would only slow each down. */
const savesAtOnce = 4

/** Saves until the signal aborts; the next start resumes an unfinished save. */
export async function saveAll(
  core: ForChannel & Pick<Core, "clock" | "log" | "space" | "turns">,
  signal: AbortSignal,
): Promise<{ saved: number; left: number }> {
  const running = (await core.store.sandboxes.listOnHost()).filter(({ state }) =>
    ["hot", "warm"].includes(state.kind),
  )
  let saved = 0
  const saveOne = (id: (typeof running)[number]["id"]) =>
    core.turns.take(id, async () => {
      const record = await core.store.sandboxes.get(id)
      if (signal.aborted || !record || !["hot", "warm"].includes(record.state.kind)) return
      const startedAt = core.clock.nowMs()
      try {
        await stopSandbox(core, record, { ending: { cause: "daemon_stopped" } })
      } catch (error) {
        core.log.error({ sandbox: id, error }, "a sandbox could not be saved and runs on")
        const code = error instanceof AppError ? error.code : "internal"
        const meta = { by: "daemon", action: "save", code }
        core.events.record({
          type: "thermal.snapshot_failed",
          userId: record.userId,
          sandbox: record,
          meta,
        })
        return
      }
      saved++
      core.events.record({
        type: "thermal.snapshot",
        userId: record.userId,
        sandbox: record,
        meta: { by: "daemon", reason: "the daemon stops", ms: Math.round(core.clock.nowMs() - startedAt) },
      })
    })
  const { promise: aborted, resolve } = Promise.withResolvers<void>()
  if (signal.aborted) resolve()
  signal.addEventListener("abort", () => resolve(), { once: true })
  await Promise.race([inParallel(running, savesAtOnce, ({ id }) => saveOne(id)), aborted])
  return { saved, left: running.length - saved }
}
