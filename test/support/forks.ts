/**
 * Forked sandboxes in tests. The first ones of a template are clones, so a test of what is forked waits for its zygote.
 * `BHATTI_TEST_CONFIG="forks: auto"` does so in every file, and with `forks: off` all are clones.
 */

import { type Installation, until } from "./installation.ts"

const names = ["until-forked-1", "until-forked-2"]

/** Waits until new sandboxes of the usual size are forked. Returns at once where the daemon says that none is. */
export async function untilForked(own: Installation): Promise<void> {
  const starts = async () => {
    const reply = await fetch(`${own.url}/version`, { headers: { authorization: `Bearer ${own.key}` } })
    const { starts: by, starts_reason: reason } = (await reply.json()) as Record<string, string>
    return {
      isForked: by === "fork",
      isUnknown: by !== "fork" && reason === "no heated machine is ready yet",
    }
  }
  if (!(await starts()).isUnknown) return
  // Templates that are used often get a zygote.
  const { exitCode, stderr } = await own.bhatti(["create", "--name", "until-forked", "--count", "2"])
  if (exitCode !== 0) throw new Error(`no sandboxes, and so no zygote: ${stderr}`)
  await until("sandboxes are forked, or it is known why not", async () => !(await starts()).isUnknown)
  await own.bhatti(["destroy", ...names, "--yes"])
}
