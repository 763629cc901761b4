/** `bhatti list`. */

import type { Sandbox } from "@bhatti/contract/sandbox"
import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { ageText, labelsText, sizeText, spanText } from "../words.ts"

export const list = command({
  description: "Shows only the sandboxes of your API key, oldest first.",
  options: {
    output: {
      type: "choice",
      short: "o",
      value: "wide",
      choices: ["wide"],
      summary: "Show size, image, labels, age and id too",
    },
    wide: { type: "flag", short: "w", summary: "The same as -o wide" },
    quiet: quietOption,
    label: {
      type: "labels",
      short: "l",
      value: "K=V,...",
      summary: "Only those with all of these labels; may be repeated",
    },
  },
  examples: [
    "bhatti list",
    "bhatti ls -o wide",
    "bhatti list --label team=web",
    "bhatti list --label owner=ci -o wide",
    "bhatti destroy -y $(bhatti list -q --label team=web)",
    "bhatti list --json | jq -r '.[].name'",
  ],
  async run({ client, options, isJson, out }) {
    const wanted = Object.entries(options.label ?? {}).map(([key, value]) => `${key}=${value}`)
    const sandboxes = await client.listSandboxes({ query: { label: wanted } })
    if (isJson) return await out.json(sandboxes)
    if (options.quiet) return await printNames(out, sandboxes)
    if (sandboxes.length === 0)
      return await out.talk(
        wanted.length === 0
          ? "no sandboxes; make one with: bhatti create --name dev"
          : "no sandbox has these labels",
      )
    const nowMs = Date.now()
    const isWide = options.wide || options.output === "wide"
    const hasEnds = sandboxes.some(({ ends_at }) => ends_at)
    const hasUrls = sandboxes.some(({ urls }) => urls.length > 0)
    const header = [
      "NAME",
      "STATUS",
      "THERMAL",
      "IP",
      ...(hasEnds ? ["ENDS"] : []),
      ...(hasUrls ? ["URL"] : []),
    ]
    const wideHeader = ["CPUS", "MEMORY", "DISK", "IMAGE", "LABELS", "AGE", "ID"]
    await out.table(
      isWide ? [...header, ...wideHeader] : header,
      sandboxes.map((sandbox) => {
        const cells = [
          sandbox.name,
          sandbox.status,
          sandbox.held ? "held" : (sandbox.thermal ?? "-"),
          sandbox.ip ?? "-",
        ]
        if (hasEnds) cells.push(endsText(sandbox, nowMs))
        if (hasUrls) cells.push(sandbox.urls.join(" ") || "-")
        if (!isWide) return cells
        return [
          ...cells,
          String(sandbox.cpus),
          sizeText(sandbox.memory_mb),
          sizeText(sandbox.disk_size_mb),
          sandbox.image,
          labelsText(sandbox.labels),
          ageText(sandbox.created_at, nowMs),
          sandbox.id,
        ]
      }),
    )
  },
})

function endsText({ ends_at, on_ttl }: Sandbox, nowMs: number): string {
  if (!ends_at) return "-"
  return `${on_ttl} in ${spanText(Math.max(0, Math.ceil((Date.parse(ends_at) - nowMs) / 1000)))}`
}
