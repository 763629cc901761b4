/** `bhatti service start`, `stop` and `restart`. */

import { command } from "../command.ts"

function controlling(action: "start" | "stop" | "restart", done: string, description: string) {
  return command({
    args: ["sandbox", "service"],
    description,
    examples: [`bhatti service ${action} dev web`],
    async run({ client, args, isJson, out }) {
      const { sandbox, service } = args
      const state = await client.controlService({ params: { id: sandbox, service }, body: { action } })
      if (isJson) return await out.json(state)
      await out.result(`service/${service} of ${sandbox} ${done}`)
    },
  })
}

export const serviceStart = controlling(
  "start",
  "started",
  "Starts a service that was stopped or has ended, at once also when it waits for its next try.",
)
export const serviceStop = controlling(
  "stop",
  "stopped",
  "Sends TERM to everything in the service's session, and KILL after 5 s. It stays stopped until it is started, or the sandbox boots.",
)
export const serviceRestart = controlling("restart", "restarted", "Stops the service, then starts it.")
