/** `bhatti ps`. */

import { command } from "../command.ts"
import { serviceColumns, serviceRow } from "../services.ts"
import { ageText, printable } from "../words.ts"

export const ps = command({
  args: ["sandbox"],
  description: "A session keeps running without a client. Attach to one with: bhatti shell SANDBOX SESSION.",
  examples: ["bhatti ps dev", "bhatti ps dev --json | jq -r '.[].session_id'"],
  async run({ client, args, isJson, out }) {
    const params = { id: args.sandbox }
    const sessions = await client.listSessions({ params })
    if (isJson) return await out.json(sessions)
    // A daemon older than this program has none.
    const { services = [] } = await client.getSandbox({ params })
    if (services.length > 0) {
      await out.table(serviceColumns, (await client.listServices({ params })).map(serviceRow))
      if (sessions.length === 0) return
    }
    if (sessions.length === 0)
      return await out.talk(`no sessions; start one with: bhatti shell ${args.sandbox}`)
    const nowMs = Date.now()
    await out.table(
      ["ID", "NAME", "COMMAND", "STATE", "ATTACHED", "STARTED"],
      sessions.map((session) => [
        session.session_id,
        printable(session.name ?? "-"),
        shortened(printable(session.argv.join(" "))),
        stateText(session),
        session.attached ? "yes" : "no",
        ageText(session.created_at, nowMs),
      ]),
    )
  },
})

function stateText(session: { running: boolean; exit_code: number | null; signal: string | null }): string {
  if (session.running) return "running"
  return session.signal === null ? `exited ${session.exit_code ?? "?"}` : `killed by ${session.signal}`
}

const commandWidthMax = 48

function shortened(text: string): string {
  return text.length <= commandWidthMax ? text : `${text.slice(0, commandWidthMax - 1)}…`
}
