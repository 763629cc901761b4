/** `bhatti doctor`. */

import { defaultDataDir } from "../../contract/limits.ts"
import { hostCommand } from "../command.ts"
import { type Check, connectionChecks, hostChecks } from "../doctor/checks.ts"
import { gatherConnection, gatherHost } from "../doctor/facts.ts"
import { exitFailed } from "../exit-codes.ts"
import { alignColumns } from "../output.ts"
import { dataDirOption } from "../user-store.ts"

export const doctor = hostCommand({
  description: `Changes nothing and needs no daemon. Looks at this host if a daemon's data directory is on it or the daemon's address is local,
and at the connection to the daemon. With sudo it sees more. Exit code 1 if something fails.`,
  options: dataDirOption,
  examples: ["sudo bhatti doctor", "bhatti doctor --json | jq '.[] | select(.status != \"ok\")'"],
  async run({ options, operator, settings, isJson, out }) {
    const found = await settings()
    const host = await gatherHost(operator, options.dataDir ?? defaultDataDir)
    const isHost = host.dataDir.kind !== "absent" || options.dataDir !== undefined || isLocal(found.url)
    const checks = [...(isHost ? hostChecks(host) : []), ...connectionChecks(await gatherConnection(found))]
    if (isJson) await out.json(checks)
    else await out.result(linesOf(checks).join("\n"))
    return checks.some(({ status }) => status === "fail") ? exitFailed : 0
  },
})

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
