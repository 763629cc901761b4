/** `bhatti why`. */

import type { Why } from "@bhatti/contract/sandbox"
import { command } from "../command.ts"
import { eventLine } from "../event-words.ts"
import { printable, spanText } from "../words.ts"

const linesMax = 30

export const why = command({
  args: ["sandbox"],
  description:
    "hot: running; warm: paused in memory; cold: on disk only. Any request makes a warm or cold one hot again. The last ends of its machines, commands and processes are listed too, also of a sandbox that is destroyed.",
  examples: ["bhatti why dev"],
  async run({ client, args, isJson, out }) {
    const reply = await client.whySandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(reply)
    const change =
      reply.changes_in_seconds === null
        ? ""
        : `; ${reply.changes_to} in ${spanText(reply.changes_in_seconds)} if nothing happens`
    const state = reply.destroyed_at ? "gone" : (reply.thermal ?? "changing")
    const lines = [
      `sandbox/${args.sandbox} is ${state}: ${reply.reason}${change}`,
      ...reply.keeps_awake.map((what) => `  kept awake by: ${what}`),
    ]
    if (reply.last_touch !== null)
      lines.push(`  last used: ${reply.last_touch.what}, ${spanText(reply.last_touch.seconds_ago)} ago`)
    if (reply.lifetime) lines.push(`  ${lifetimeText(reply.lifetime, args.sandbox)}`)
    if (reply.started_from_disk !== null)
      lines.push(`  its last start was a boot from its disk: ${reply.started_from_disk}`)
    if (reply.root_read_only)
      lines.push(`  its file system refuses writes; to repair it: bhatti repair ${args.sandbox}`)
    // A daemon older than this program omits it.
    if (reply.failed_starts) {
      const { in_a_row: count, reason, rest_seconds: seconds } = reply.failed_starts
      lines.push(`  starts that failed since it last ran: ${count}, the last one: ${reason}`)
      if (seconds > 0) lines.push(`  to try it at once: bhatti start ${args.sandbox} --force`)
    }
    for (const { name, restarts, reason } of reply.failing_services ?? [])
      lines.push(
        `  its service ${printable(name)} keeps failing: ${printable(reason ?? "it ended")} (${restarts} restarts)`,
      )
    if (reply.panic_console) {
      lines.push("  its kernel panicked last; the end of its console:")
      lines.push(
        ...reply.panic_console
          .split(/\r?\n/)
          .slice(-linesMax)
          .map((line) => `    ${printable(line)}`),
      )
    }
    // A daemon older than this program omits them.
    if ((reply.ends?.length ?? 0) > 0)
      lines.push("  its last ends:", ...reply.ends.map((event) => `    ${eventLine(event)}`))
    await out.result(lines.join("\n"))
  },
})

const doneText = { pause: "is paused", destroy: "is destroyed" } as const

function lifetimeText(lifetime: NonNullable<Why["lifetime"]>, name: string): string {
  const { ends_in_seconds: seconds, action, reason } = lifetime
  if (seconds === null) return `its time to live is over; to give it another: bhatti edit ${name} --ttl 2h`
  const end = `in ${spanText(seconds)}`
  if (reason === "stopped_retention")
    return `it is stopped and is destroyed ${end}, unless it is used before: the operator keeps stopped ones so long`
  if (action === "keep") return `its time to live is over ${end}, and it goes on`
  return `its time to live ends ${end}: it ${doneText[action]} then; for more: bhatti edit ${name} --ttl 2h`
}
