/** `bhatti doctor`. */

import { AppError } from "@bhatti/contract/errors"
import { defaultDataDir } from "@bhatti/contract/limits"
import { type HostContext, hostCommand } from "../command.ts"
import { type Check, connectionChecks, hostChecks, settingsCheck } from "../doctor/checks.ts"
import { gatherConnection, gatherHost } from "../doctor/facts.ts"
import { exitFailed } from "../exit-codes.ts"
import { alignColumns } from "../output.ts"
import type { Settings } from "../settings.ts"
import { dataDirOption } from "../user-store.ts"

export const doctor = hostCommand({
  description: `Changes nothing and needs no daemon. Looks at this host if a daemon's data directory is on it or the daemon's address is local,
and at the connection to the daemon. With sudo it sees more. Exit code 1 if something fails.`,
  options: dataDirOption,
  examples: ["sudo bhatti doctor", "bhatti doctor --json | jq '.[] | select(.status != \"ok\")'"],
  async run({ options, operator, settings, isJson, out }) {
    const found = await settingsOrCheck(settings)
    // On another system a local address is a tunnel to the daemon's host, so none of the checked things are here.
    const host =
      process.platform === "linux" ? await gatherHost(operator, options.dataDir ?? defaultDataDir) : undefined
    const isHost =
      host !== undefined &&
      (host.dataDir.kind !== "absent" ||
        options.dataDir !== undefined ||
        !("url" in found) ||
        isLocal(found.url))
    const connection = "url" in found ? connectionChecks(await gatherConnection(found)) : [found]
    const checks = [...(isHost ? hostChecks(host) : []), ...connection]
    if (isJson) await out.json(checks)
    else await out.result(linesOf(checks).join("\n"))
    return checks.some(({ status }) => status === "fail") ? exitFailed : 0
  },
})

async function settingsOrCheck(settings: HostContext["settings"]): Promise<Settings | Check> {
  try {
    return await settings()
  } catch (error) {
    if (error instanceof AppError) return settingsCheck(error)
    throw error
  }
}

function isLocal(url: string): boolean {
  const { hostname } = new URL(url)
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.")
}

function linesOf(checks: readonly Check[]): string[] {
  const rows = alignColumns(checks.map(({ status, area, text }) => [status, area, text]))
  return checks.flatMap(({ fix }, index) => [
    rows[index] ?? "",
    ...(fix === undefined ? [] : [`      fix: ${fix}`]),
  ])
}
