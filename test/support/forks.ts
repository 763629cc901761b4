/**
 * A run of the tests with forked machines: `BHATTI_TEST_CONFIG="forks: auto"`. The first machines of a template are
 * clones, so a test that is about the machine waits for its zygote.
 */

import { type Installation, until } from "./installation.ts"

export const areForked = /^forks: auto$/m.test(process.env["BHATTI_TEST_CONFIG"] ?? "")

/** Waits until new sandboxes are forked, if they are to be in this run. */
export async function untilForked(own: Installation): Promise<void> {
  if (!areForked) return
  await until(
    "sandboxes are forked",
    async () => {
      await ok(own, ["create", "--name", "until-forked"])
      const { stdout } = await ok(own, [
        "events",
        "--sandbox",
        "until-forked",
        "--type",
        "sandbox.created",
        "--json",
      ])
      await ok(own, ["destroy", "until-forked", "--yes"])
      return (JSON.parse(stdout) as { meta: { from: string } }[]).at(-1)?.meta.from === "fork"
    },
    { deadlineMs: 120_000 },
  )
}

async function ok(own: Installation, args: string[]) {
  const result = await own.bhatti(args)
  if (result.exitCode !== 0) throw new Error(`bhatti ${args.join(" ")}: ${result.stderr}`)
  return result
}
