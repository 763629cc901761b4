/** A machine's two sockets. We listen on its behalf before it starts, so a connection is never too early. */

import { closeSync } from "node:fs"
import { join } from "node:path"
import { removeFile } from "../lib/missing-files.ts"
import { listenUnix } from "../lib/posix.ts"
import { removeOldLog } from "./old-log-files.ts"

/** Listening descriptors that QEMU inherits. */
export type Sockets = { agent: number; qmp: number } & Disposable

export function agentSocket(directory: string): string {
  return join(directory, "agent.sock")
}

export function qmpSocket(directory: string): string {
  return join(directory, "qmp.sock")
}

/** Removes sockets that an earlier process left in the directory first. */
export function listenSockets(directory: string): Sockets {
  for (const path of [agentSocket(directory), qmpSocket(directory)]) removeFile(path)
  removeOldLog(directory)
  using undo = new DisposableStack()
  const listen = (path: string) => undo.adopt(listenUnix(path), closeSync)
  const sockets = { agent: listen(agentSocket(directory)), qmp: listen(qmpSocket(directory)) }
  const opened = undo.move()
  return { ...sockets, [Symbol.dispose]: () => opened.dispose() }
}

/** Connects to a guest's socket. */
export type Connect<Guest> = (socketPath: string) => Promise<Guest>

/**
 * Connects to the guest before its machine runs, so that no message is lost. `run` closes the sockets as soon as QEMU
 * has them.
 */
export async function startConnected<Machine, Guest extends { close(): void }>(
  directory: string,
  connect: Connect<Guest>,
  run: (sockets: Sockets) => Promise<Machine>,
): Promise<{ machine: Machine; guest: Guest }> {
  using sockets = listenSockets(directory)
  const guest = await connect(agentSocket(directory))
  try {
    return { machine: await run(sockets), guest }
  } catch (error) {
    guest.close()
    throw error
  }
}
