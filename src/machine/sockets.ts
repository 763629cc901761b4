/** A machine's two sockets. We listen on its behalf before it starts, so a connection is never too early. */

import { closeSync } from "node:fs"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { listenUnix } from "../lib/posix.ts"
import { removeOldLog } from "./old-log-files.ts"

/** Listening descriptors that QEMU inherits. */
export type Sockets = { agent: number; qmp: number }

export function agentSocket(directory: string): string {
  return join(directory, "agent.sock")
}

export function qmpSocket(directory: string): string {
  return join(directory, "qmp.sock")
}

/** Removes sockets that an earlier process left in the directory first. */
export async function listenSockets(directory: string): Promise<Sockets> {
  await Promise.all([
    rm(agentSocket(directory), { force: true }),
    rm(qmpSocket(directory), { force: true }),
    removeOldLog(directory),
  ])
  const agent = listenUnix(agentSocket(directory))
  try {
    return { agent, qmp: listenUnix(qmpSocket(directory)) }
  } catch (error) {
    closeSync(agent)
    throw error
  }
}

export function closeSockets(sockets: Sockets): void {
  closeSync(sockets.agent)
  closeSync(sockets.qmp)
}

/** Connects to a guest's socket. */
export type Connect<Guest> = (socketPath: string) => Promise<Guest>

/** Connects to the guest before its machine runs, so that no message is lost. `run` closes the sockets. */
export async function startConnected<Machine, Guest extends { close(): void }>(
  directory: string,
  connect: Connect<Guest>,
  run: (sockets: Sockets) => Promise<Machine>,
): Promise<{ machine: Machine; guest: Guest }> {
  const sockets = await listenSockets(directory)
  const guest = await connect(agentSocket(directory))
  try {
    return { machine: await run(sockets), guest }
  } catch (error) {
    guest.close()
    throw error
  }
}
