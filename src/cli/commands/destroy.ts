/** `bhatti destroy`. */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import { command } from "../command.ts"
import { isConfirmed, isPersonThere } from "../confirm.ts"
import { exitCodeOf, exitFailed } from "../exit-codes.ts"
import { noticeWhenInterrupted } from "../left-running.ts"

export const destroy = command({
  rest: { name: "sandbox", kind: "names" },
  description:
    "Asks for confirmation at a terminal, and does not ask in a script. All named sandboxes are tried.",
  options: {
    yes: { type: "flag", short: "y", summary: "Do not ask" },
  },
  examples: ["bhatti destroy dev", "bhatti rm -y dev worker"],
  async run({ client, rest, options, isJson, out, report }) {
    let exitCode = 0
    let names = [...new Set(rest)]
    if (!options.yes && !isJson && (await isPersonThere())) {
      // A question about a misspelt name would suggest that there is something to lose.
      const missing = await missingOf(names, client)
      for (const error of missing.values()) await report(error)
      if (missing.size > 0) exitCode = exitFailed
      names = names.filter((name) => !missing.has(name))
      if (names.length === 0) return exitCode
      const disks = names.length === 1 ? "its disk" : "their disks"
      if (!isConfirmed(`Destroy ${names.join(", ")} and everything on ${disks}?`)) {
        await out.talk("nothing was destroyed")
        return exitFailed
      }
    }
    const verb = names.length === 1 ? "is" : "are"
    using _interrupted = noticeWhenInterrupted(
      out,
      `${names.join(", ")} ${verb} still being destroyed; see: bhatti list`,
    )
    const attempts = names.map((name) => ({ name, reply: client.destroySandbox({ params: { id: name } }) }))
    const outcomes = await Promise.allSettled(attempts.map((attempt) => attempt.reply))
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === "rejected") {
        if (!(outcome.reason instanceof AppError)) throw outcome.reason
        await report(outcome.reason)
        exitCode = Math.max(exitCode, exitCodeOf(outcome.reason))
      } else if (isJson) await out.json(outcome.value)
      else await out.result(`sandbox/${names[index]} destroyed`)
    }
    return exitCode
  },
})

/** Returns the missing sandboxes, each with the daemon's error. */
async function missingOf(names: readonly string[], client: Client): Promise<Map<string, AppError>> {
  const missing = new Map<string, AppError>()
  for (const name of names) {
    try {
      await client.getSandbox({ params: { id: name } })
    } catch (error) {
      if (!(error instanceof AppError) || error.code !== "not_found") throw error
      missing.set(name, error)
    }
  }
  return missing
}
