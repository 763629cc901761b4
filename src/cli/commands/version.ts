/** `bhatti version`. Contacts the daemon only if asked to, so that it answers immediately everywhere. */

import type { Version } from "@bhatti/contract/system"
import { version as programVersion } from "../../lib/version.ts"
import { hostCommand } from "../command.ts"
import { connectTo } from "../transport.ts"

export const version = hostCommand({
  options: {
    daemon: { type: "flag", summary: "Show the daemon's version and its host's guarantees too" },
  },
  examples: ["bhatti version", "bhatti version --daemon"],
  async run({ options, settings, isJson, out }) {
    // Unreadable settings must not hide this program's version.
    if (!isJson) await out.result(`bhatti v${programVersion}`)
    const found = await settings()
    const { url } = found
    if (!options.daemon) {
      if (isJson) return await out.json({ version: programVersion, api_url: url })
      return await out.result(`api: ${url}`)
    }
    const daemon = await connectTo(found).version()
    if (isJson) return await out.json(daemon)
    const accelerator = daemon.accelerator === "kvm" ? "KVM" : "software emulation"
    await out.result(
      [
        `api: ${url}`,
        `daemon: v${daemon.version}, ${accelerator} (${daemon.accelerator_reason})`,
        ...startsOf(daemon),
        ...daemon.warnings.map((warning) => `warning: ${warning}`),
      ].join("\n"),
    )
  },
})

function startsOf({ starts, starts_reason: reason }: Version): string[] {
  if (starts === undefined) return []
  return [`new sandboxes are ${starts === "fork" ? "forked" : "cloned"}: ${reason}`]
}
