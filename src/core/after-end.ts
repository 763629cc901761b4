/** Explains why a machine ended, and restarts it if its guest rebooted. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, ForWake } from "./core.ts"
import type { Fate } from "./host.ts"
import { wakeSandbox } from "./power.ts"
import { rebootsMax } from "./reboots.ts"

/** Limit on the kernel's own text. */
const panicCharacters = 200

export function fateText(fate: Fate): string {
  switch (fate.how) {
    case "running":
      return "its guest did not answer"
    case "out_of_memory":
      return "the host ran out of memory and ended its machine"
    case "host_restart":
      return "its machine ended when the host restarted"
    case "killed":
      return "its machine was killed"
    case "poweroff":
      return "it was powered off inside"
    case "reboot":
      return "it was rebooted inside"
    case "agent":
      return "its agent failed and switched it off"
    case "init":
      return `its init ended: ${initLine(fate.console)}`
    case "panic":
      return `its kernel panicked: ${panicLine(fate.console)}`
  }
}

/** The agent's words, which end in how its init ended. */
function initLine(console: string): string {
  const said = /^lohar: the init of the sandbox ended: *([\w ]{1,40})/m.exec(console)?.[1]
  return said ?? "no reason given"
}

function panicLine(console: string): string {
  const said = /Kernel panic - not syncing: *([^\r\n]*)/.exec(console)?.[1] ?? "no reason given"
  return said.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, panicCharacters)
}

/** Needs its turn. A failure becomes an event, not an error of the caller. */
export async function startAgain(
  core: ForWake & Pick<Core, "reboots">,
  { id }: SandboxRecord,
): Promise<void> {
  const record = await core.store.sandboxes.get(id)
  if (record?.state.kind !== "cold" || core.destroying.has(id)) return
  if (!core.reboots.add(id)) {
    const reason = `it was rebooted inside more than ${rebootsMax} times within a minute`
    return core.store.sandboxes.setState(id, { ...record.state, reason })
  }
  try {
    await wakeSandbox(core, record, "its reboot")
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    core.log.warn({ sandbox: id, error }, "a sandbox that was rebooted inside does not start")
  }
}
