/** Services on the command line: as `create` takes them, and as tables show them. */

import type { Service, ServiceState } from "@bhatti/contract/services"
import { printable, spanText } from "./words.ts"
import { WrongUsage } from "./wrong-usage.ts"

/** Reads `NAME=CMD` and `NAME:POLICY=CMD`; each starts after the ones before it. */
export function servicesFrom(given: readonly string[]): Pick<Service, "name" | "command" | "restart">[] {
  return given.map((text) => {
    const [, name, policy = "always", command] =
      /^([^=:]+)(?::(always|on-failure|never))?=(.+)$/s.exec(text) ?? []
    if (name === undefined || command === undefined) {
      throw new WrongUsage(`--service ${text}: it must be NAME=COMMAND or NAME:POLICY=COMMAND`, {
        hint: "POLICY is always, on-failure or never",
      })
    }
    return { name, command, restart: policy as Service["restart"] }
  })
}

export const serviceColumns = ["SERVICE", "STATE", "RESTARTS", "POLICY", "PROCESS", "COMMAND"]

export function serviceRow(service: ServiceState): string[] {
  return [
    printable(service.name),
    stateText(service),
    `${service.restarts}`,
    service.restart,
    service.process_id ?? "-",
    shortened(printable(service.command)),
  ]
}

function stateText({ state, failing, reason, retry_seconds: retry }: ServiceState): string {
  if (state === "running") return failing ? "running, failing" : "running"
  if (state === "stopped") return "stopped"
  const why = reason === null ? "" : `: ${printable(reason)}`
  return state === "ended" ? `ended${why}` : `waits ${spanText(retry ?? 0)}${why}`
}

const commandWidthMax = 48

function shortened(text: string): string {
  return text.length <= commandWidthMax ? text : `${text.slice(0, commandWidthMax - 1)}…`
}
