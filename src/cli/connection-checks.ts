/** The doctor's part of the command line: is the daemon reached, with this key, in this version, at this time. */

import { AppError } from "@bhatti/contract/errors"
import { type Check, fail, ok, warn } from "../lib/preflight.ts"
import { version } from "../lib/version.ts"
import { adviceFor } from "./advice.ts"
import type { Settings } from "./settings.ts"
import { connectTo } from "./transport.ts"

const answerMs = 5000
const clockSkewWarnMs = 5000

export type ConnectionFacts = {
  url: string
  token: { source: string } | undefined
  ownVersion: string
  daemon:
    | { kind: "answers"; version: string; warnings: string[]; clockSkewMs: number | undefined }
    | { kind: "fails"; error: AppError }
}

export async function checkConnection(settings: Settings): Promise<Check[]> {
  const { url, tokenSource: source } = settings
  const token = source === undefined ? undefined : { source }
  return connectionChecks({ url, token, ownVersion: version, daemon: await askDaemon(settings) })
}

export function connectionChecks({ daemon, url, token, ownVersion }: ConnectionFacts): Check[] {
  if (daemon.kind === "fails") {
    const { error } = daemon
    if (error.code !== "unauthenticated") return [fail("daemon", error.message, adviceFor(error))]
    const text = token === undefined ? "no API key is set" : `the key from ${token.source} is refused`
    return [ok("daemon", `answers at ${url}`), fail("key", text, "bhatti setup")]
  }
  return [
    ok("daemon", `answers at ${url}`),
    ok("key", `the key from ${token?.source ?? "nowhere"} is valid`),
    daemon.version === ownVersion
      ? ok("version", `${ownVersion} here and there`)
      : warn(
          "version",
          `${ownVersion} here, ${daemon.version} at the daemon`,
          "install the same version on both sides, then restart the daemon",
        ),
    ...daemon.warnings.map((text) => warn("daemon", text)),
    ...checkSkew(daemon.clockSkewMs),
  ]
}

async function askDaemon(address: Settings): Promise<ConnectionFacts["daemon"]> {
  const sentMs = Date.now()
  let clockSkewMs: number | undefined
  const onHeaders = (headers: Headers) => {
    const theirsMs = Date.parse(headers.get("date") ?? "")
    // The daemon's clock shows whole seconds and was read between our two readings.
    if (!Number.isNaN(theirsMs)) clockSkewMs = theirsMs + 500 - (sentMs + Date.now()) / 2
  }
  try {
    const signal = AbortSignal.timeout(answerMs)
    const about = await connectTo(address).version({ signal, onHeaders })
    return { kind: "answers", version: about.version, warnings: about.warnings, clockSkewMs }
  } catch (cause) {
    if (cause instanceof AppError) return { kind: "fails", error: cause }
    const error = new AppError("unavailable", `${address.url} does not answer within ${answerMs / 1000} s`, {
      cause,
    })
    return { kind: "fails", error }
  }
}

function checkSkew(clockSkewMs: number | undefined): Check[] {
  if (clockSkewMs === undefined || Math.abs(clockSkewMs) < clockSkewWarnMs) return []
  const seconds = Math.round(Math.abs(clockSkewMs) / 1000)
  const text = `the daemon's clock is ${seconds} s ${clockSkewMs > 0 ? "ahead of" : "behind"} this one`
  return [warn("clock", text, "sudo timedatectl set-ntp true, on both")]
}
