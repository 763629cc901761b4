/** `bhatti doctor`. */

import { stat } from "node:fs/promises"
import { AppError } from "@bhatti/contract/errors"
import { defaultDataDir } from "@bhatti/contract/limits"
import { isMissing } from "../../lib/missing-files.ts"
import { type Check, fail } from "../../lib/preflight.ts"
import { type HostContext, hostCommand } from "../command.ts"
import { checkConnection } from "../connection-checks.ts"
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
    const dataDir = options.dataDir ?? defaultDataDir
    // On another system a local address is a tunnel to the daemon's host, so none of the checked things are here.
    const isHost =
      process.platform === "linux" &&
      (options.dataDir !== undefined ||
        !("url" in found) ||
        isLocal(found.url) ||
        (await stat(dataDir).then(
          () => true,
          (error) => !isMissing(error),
        )))
    const checks = [
      ...(isHost
        ? await operator.preflight({ dataDir, ...("url" in found && { daemonUrl: found.url }) })
        : []),
      ...("url" in found ? await checkConnection(found) : [found]),
    ]
    if (isJson) await out.json(checks)
    else await out.result(linesOf(checks).join("\n"))
    return checks.some(({ status }) => status === "fail") ? exitFailed : 0
  },
})

async function settingsOrCheck(settings: HostContext["settings"]): Promise<Settings | Check> {
  try {
    return await settings()
  } catch (error) {
    // Without usable settings there is no connection to check.
    if (error instanceof AppError) return fail("settings", error.message, error.hint)
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
