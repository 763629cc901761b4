/** `bhatti inspect`. */

import type { Sandbox } from "@bhatti/contract/sandbox"
import { command } from "../command.ts"
import { egressText } from "../egress.ts"
import { alignColumns } from "../output.ts"
import { settingLines } from "../sandbox-settings.ts"
import { ageText, cpusText, labelsText, printable, sizeText } from "../words.ts"

export const inspect = command({
  args: ["sandbox"],
  examples: ["bhatti inspect dev", "bhatti inspect dev --json | jq -r .ip"],
  async run({ client, args, isJson, out }) {
    const sandbox = await client.getSandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(sandbox)
    const reason = sandbox.status_reason === null ? "" : ` (${sandbox.status_reason})`
    const lines = alignColumns([
      ["name", sandbox.name],
      ["id", sandbox.id],
      ["status", `${sandbox.status}${reason}`],
      ["thermal", sandbox.thermal ?? "-"],
      ["keep hot", sandbox.keep_hot ? "on" : "off"],
      ...(sandbox.start_command ? [["runs", sandbox.start_command] as const] : []),
      ...(sandbox.init_system ? [["init system", "the image's"] as const] : []),
      ...(sandbox.services ?? []).map(({ name, command }) => [`service ${name}`, command] as const),
      ...(sandbox.on_boot ? [["at boot", "runs its init script"] as const] : []),
      ["allow cold", sandbox.allow_cold ? "on" : "off"],
      ...settingLines(sandbox),
      ["image", sandbox.image],
      ...imageLines(sandbox),
      [
        "size",
        `${cpusText(sandbox.cpus)}, ${sizeText(sandbox.memory_mb)} memory, ${sizeText(sandbox.disk_size_mb)} disk`,
      ],
      ["ip", sandbox.ip ?? "-"],
      ["egress", egressText(sandbox.net_policy)],
      ["labels", labelsText(sandbox.labels)],
      ["urls", sandbox.urls.join(" ") || "-"],
      ["created", `${sandbox.created_at} (${ageText(sandbox.created_at, Date.now())})`],
    ])
    await out.result(lines.join("\n"))
  },
})

/** The configuration that an image has brought along. */
function imageLines({ image_config: config, main }: Sandbox): [string, string][] {
  // A daemon of an earlier version does not tell.
  if (!config) return main ? [["main", main.map(wordText).join(" ")]] : []
  const { user, workdir, env, entrypoint, cmd, ports, labels } = config
  const program = [...entrypoint, ...cmd].map(wordText).join(" ")
  return [
    ["image user", user === "" ? "root" : user],
    ["image directory", workdir === "" ? "/" : workdir],
    ["image program", program === "" ? "-" : program],
    ["main", main ? main.map(wordText).join(" ") : "not started"],
    ["image ports", ports.join(" ") || "-"],
    ...Object.entries(env).map(([name, value]): [string, string] => [
      "image env",
      printable(`${name}=${value}`),
    ]),
    ...Object.entries(labels).map(([name, value]): [string, string] => [
      "image label",
      printable(`${name}=${value}`),
    ]),
  ]
}

function wordText(word: string): string {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : printable(JSON.stringify(word))
}
