/** `bhatti kill`. */

import { command } from "../command.ts"

export const kill = command({
  args: ["sandbox", "process"],
  description:
    "PROCESS is an id or a name that bhatti ps shows; the signal goes to everything that it has started too. A process that has ended is removed from the list.",
  options: {
    signal: {
      type: "choice",
      short: "s",
      value: "SIGNAL",
      choices: ["KILL", "TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "STOP", "CONT"],
      summary: "Signal to send: TERM, INT, HUP, QUIT, USR1, USR2, STOP, CONT",
      fallback: "KILL",
    },
  },
  examples: ["bhatti kill dev s1", "bhatti kill dev p2 --signal TERM"],
  async run({ client, args, options, isJson, out }) {
    const { sandbox, process } = args
    const params = { id: sandbox, process }
    const known = await client.getProcess({ params })
    const killed = await client.killSession({
      params: { id: sandbox, session: process },
      body: options.signal === undefined ? {} : { signal: options.signal },
    })
    if (isJson) return await out.json(killed)
    const about = `${known.kind}/${process} of ${sandbox}`
    await out.result(
      known.ended ? `${about} had ended; it is kept no longer` : `${about} got ${options.signal ?? "KILL"}`,
    )
  },
})
