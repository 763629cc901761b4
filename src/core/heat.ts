/**
 * Runs in a guest what the identity and a first command need, so that their code is translated: machines that are
 * forked from it find the translations there. Twice, since QEMU translates again when code runs from another place.
 */

import { AppError } from "@bhatti/contract/errors"
import type { GuestIdentity } from "@bhatti/contract/guest"
import type { Guest } from "./host.ts"
import { runInGuest } from "./run-in-guest.ts"

const deadlineMs = 30_000
const rounds = 2
const filePath = "/tmp/.heat"
const fileBytes = Buffer.alloc(4096, "heat\n")

const commands: string[][] = [
  ["true"],
  ["echo"],
  ["sh", "-c", ":"],
  ["sh", "-c", "echo again | cat; ls / >/dev/null; exit 3"],
]

/**
 * Leaves the guest silent, as `nobody`, and its connection open. `somebody` stands for the identity that each machine
 * gets for itself, with its network: setting up an address takes longer than the rest of it.
 */
export async function heat(
  guest: Guest,
  { nobody, somebody }: { nobody: GuestIdentity; somebody: GuestIdentity },
): Promise<void> {
  await guest.waitReady({ deadlineMs })
  for (let round = 0; round < rounds; round++) {
    await guest.ask({ op: "personalise", identity: somebody }, { deadlineMs })
    for (const argv of commands) await runIfThere(guest, { argv })
    await runInTerminal(guest)
    await moveFile(guest)
    await guest.ask({ op: "personalise", identity: nobody }, { deadlineMs })
  }
  await guest.ask({ op: "removeFile", path: filePath, recursive: false }, { deadlineMs })
  await guest.ask({ op: "refresh" }, { deadlineMs })
  await guest.ask({ op: "quiesce", hold: false }, { deadlineMs })
}

/** A program missing from the image is not an error. */
async function runIfThere(guest: Guest, command: { argv: string[] }): Promise<void> {
  try {
    await runInGuest(guest, { ...command, timeoutMs: deadlineMs })
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
  }
}

async function runInTerminal(guest: Guest): Promise<void> {
  const command = guest.processes.start({
    argv: ["sh", "-c", "echo terminal"],
    tty: { rows: 24, cols: 80 },
    stdin: true,
    onDisconnect: "kill",
    timeoutMs: deadlineMs,
  })
  command.endInput()
  try {
    for await (const _ of command.output);
    await command.result
  } catch (error) {
    if (!(error instanceof AppError && error.code === "not_found")) throw error
  }
}

async function moveFile(guest: Guest): Promise<void> {
  const written = guest.open({ op: "writeFile", path: filePath, size: fileBytes.length, parents: false })
  await Promise.race([written.write(fileBytes), written.result])
  written.endInput()
  await written.result
  const read = guest.open({ op: "readFile", path: filePath })
  for await (const _ of read.output);
  await read.result
}
