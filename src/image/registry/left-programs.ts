/**
 * Ends the programs that an earlier daemon has left. Their user ids belong to fetches alone, and the kernel lets such
 * an id signal nobody else, so that no pid is trusted.
 */

import { AppError } from "@bhatti/contract/errors"
import { listPids, readOfProcess } from "../../lib/process-identity.ts"

const deadlineMs = 5000
const lookMs = 20

/** Returns once none is left; throws if one stays. */
export async function endProgramsOf(uids: readonly number[]): Promise<void> {
  const endMs = performance.now() + deadlineMs
  for (;;) {
    const running = runningUids(uids)
    if (running.size === 0) return
    if (performance.now() > endMs) {
      throw new AppError("unavailable", `programs of user ids ${[...running].join(", ")} do not end`, {
        hint: "an earlier daemon has left them; end them, then start the daemon again",
        subject: { kind: "host" },
      })
    }
    for (const uid of running) await killAllOf(uid)
    await Bun.sleep(lookMs)
  }
}

/** Signals every process that this user id may signal; fails if there is none any more. */
async function killAllOf(uid: number): Promise<void> {
  const identity = ["--reuid", `${uid}`, "--regid", `${uid}`, "--clear-groups", "--bounding-set=-all"]
  const kill = ["/bin/sh", "-c", "kill -s KILL -- -1"]
  const child = Bun.spawn(["setpriv", ...identity, "--inh-caps=-all", ...kill], {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    stdio: ["ignore", "ignore", "ignore"],
  })
  await child.exited
}

function runningUids(uids: readonly number[]): Set<number> {
  const running = new Set<number>()
  for (const pid of listPids()) {
    const status = readOfProcess(pid, "status")
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1])
    // The parent of a zombie has yet to read its end.
    if (uids.includes(uid) && !/^State:\t[ZX]/m.test(status)) running.add(uid)
  }
  return running
}
