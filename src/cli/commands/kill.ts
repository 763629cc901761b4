/** `bhatti kill`. */

import { command } from "../command.ts"

export const kill = command({
  args: ["sandbox", "session"],
  description:
    "SESSION is an id or a name that bhatti ps shows; the signal goes to every process in it. A session that has ended is removed from the list.",
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
  examples: ["bhatti kill dev s1", "bhatti kill dev init --signal TERM"],
  async run({ client, args, options, isJson, out }) {
    const { sandbox, session } = args
    const killed = await client.killSession({
      params: { id: sandbox, session },
      body: options.signal === undefined ? {} : { signal: options.signal },
    })
    if (isJson) return await out.json(killed)
    await out.result(`session/${session} of ${sandbox} got ${options.signal ?? "KILL"}`)
  },
})
