/** `bhatti destroy`. */

import { AppError } from "../../contract/errors.ts"
import { command } from "../command.ts"
import { sayWhenLeft } from "../leaving.ts"
import { isTerminal } from "../output.ts"

export const destroy = command({
  rest: { name: "sandbox", kind: "names" },
  description:
    "Asks first when a person is at the terminal; in a script it acts. All named sandboxes are tried.",
  options: {
    yes: { type: "flag", short: "y", summary: "Do not ask" },
  },
  examples: ["bhatti destroy dev", "bhatti rm -y dev worker"],
  async run({ client, rest, options, isJson, out, report }) {
    const names = [...new Set(rest)]
    if (!options.yes && !isJson && (await isPersonThere())) {
      // `confirm` is the runtime's own question: it reads one line and takes anything but y for no.
      if (
        !confirm(
          `Destroy ${names.join(", ")} and everything on ${names.length === 1 ? "its disk" : "their disks"}?`,
        )
      ) {
        await out.talk("nothing was destroyed")
        return 1
      }
    }
    const verb = names.length === 1 ? "is" : "are"
    using _leaving = sayWhenLeft(out, `${names.join(", ")} ${verb} still being destroyed; see: bhatti list`)
    const attempts = names.map((name) => ({ name, reply: client.destroySandbox({ params: { id: name } }) }))
    const outcomes = await Promise.allSettled(attempts.map((attempt) => attempt.reply))
    let exitCode = 0
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === "rejected") {
        if (!(outcome.reason instanceof AppError)) throw outcome.reason
        await report(outcome.reason)
        exitCode = 1
      } else if (isJson) await out.json(outcome.value)
      else await out.result(`sandbox/${names[index]} destroyed`)
    }
    return exitCode
  },
})

async function isPersonThere(): Promise<boolean> {
  return (await isTerminal(0)) && (await isTerminal(1))
}
