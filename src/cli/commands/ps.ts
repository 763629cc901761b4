/** `bhatti ps`. */

import type { Process } from "@bhatti/contract/process"
import { command } from "../command.ts"
import { endText } from "../process-words.ts"
import { serviceColumns, serviceRow } from "../services.ts"
import { ageText, printable } from "../words.ts"

export const ps = command({
  args: ["sandbox"],
  description: `Lists the commands that are kept: sessions, which have a terminal (attach with: bhatti shell SANDBOX ID), and commands that were started
with bhatti exec --detach, or that run for a client. Ended ones stay for a while, with their exit and its reason.
Services come first, if the sandbox has some.`,
  examples: ["bhatti ps dev", "bhatti ps dev --json | jq -r '.[].process_id'"],
  async run({ client, args, isJson, out }) {
    const params = { id: args.sandbox }
    const all = await client.listProcesses({ params })
    // The results of clients' commands are there only in case that a client comes back.
    const processes = all.filter(({ running, on_disconnect }) => running || on_disconnect === "keep")
    if (isJson) return await out.json(processes.map(withSessionFields))
    // A daemon older than this program has none.
    const { services = [] } = await client.getSandbox({ params })
    if (services.length > 0) {
      await out.table(serviceColumns, (await client.listServices({ params })).map(serviceRow))
      if (processes.length === 0) return
    }
    if (processes.length === 0)
      return await out.talk(`nothing is kept; start a session with: bhatti shell ${args.sandbox}`)
    const nowMs = Date.now()
    await out.table(
      ["ID", "NAME", "KIND", "COMMAND", "STATE", "ATTACHED", "STARTED"],
      processes.map((process) => [
        process.process_id,
        printable(process.name ?? "-"),
        process.kind,
        shortened(printable(process.argv.join(" "))),
        process.ended ? endText(process.ended) : "running",
        attachedText(process),
        ageText(process.created_at, nowMs),
      ]),
    )
  },
})

function attachedText({ driven, watchers }: { driven: boolean; watchers: number }): string {
  const watching = watchers === 0 ? [] : [`${watchers} watching`]
  return [...(driven ? ["yes"] : []), ...watching].join(", ") || "no"
}

/** Scripts know sessions by these names. */
function withSessionFields(process: Process) {
  const { process_id: session_id, ended, driven: attached } = process
  return {
    ...process,
    ...{ session_id, attached, exit_code: ended?.exit_code ?? null, signal: ended?.signal ?? null },
  }
}

const commandWidthMax = 48

function shortened(text: string): string {
  return text.length <= commandWidthMax ? text : `${text.slice(0, commandWidthMax - 1)}…`
}
