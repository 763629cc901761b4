/**
 * Proves before the first machine starts that QEMU can be confined on this host as configured: runs QEMU once in
 * the jail to print its version. If that fails, the daemon does not serve.
 */

import { closeSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import type { QemuBuild } from "./fingerprint.ts"
import { type Jail, prepareLauncher } from "./jail.ts"
import { KeptQemus } from "./kept-qemu.ts"
import { type Confinement, launch } from "./process.ts"
import { makeStderrPipe, readStderr, reopenStderr } from "./stderr.ts"

const proofDeadlineMs = 10_000
const wordsMax = 65_536

export async function openJail(options: {
  dataDir: string
  qemu: QemuBuild
  /** The operator's `forbidden_qemu`. */
  forbidden: readonly string[]
  launcher: string
  level: Confinement["level"]
  uid: number | undefined
}): Promise<{ jail: Jail; qemus: KeptQemus }> {
  const { dataDir, qemu, level, uid } = options
  const launcher = await prepareLauncher({ dataDir, built: options.launcher })
  const isOutside = level === "reduced"
  const qemus = await KeptQemus.open({ dataDir, qemu, forbidden: options.forbidden, isOutside })
  const jail = { launcher, root: qemus.present.root }
  const pipe = makeStderrPipe()
  const readFd = reopenStderr(pipe.readFd)
  try {
    const access = { groups: [], devices: ["/dev/null"], cgroup: undefined, fileBytesMax: 0 }
    const confinement = { jail, level, uid, ...access }
    const output = pipe.writeFd
    await launch({ binary: qemu.binary, arguments: ["--version"], files: {}, confinement, output })
    await waitForVersion(readFd, qemu)
  } catch (cause) {
    if (!(cause instanceof AppError) || level === "reduced") throw cause
    throw new AppError("unavailable", cause.message, {
      cause,
      hint: "see what bhatti doctor says of namespaces, or accept less: confinement: reduced in config.yaml",
      retryable: false,
    })
  } finally {
    for (const fd of [readFd, pipe.readFd, pipe.writeFd]) closeSync(fd)
  }
  return { jail, qemus }
}

async function waitForVersion(readFd: number, qemu: QemuBuild): Promise<void> {
  const deadline = performance.now() + proofDeadlineMs
  for (let text = ""; ; ) {
    const bytes = readStderr(readFd)
    text = (text + (bytes?.toString() ?? "")).slice(-wordsMax)
    if (text.includes(qemu.version)) return
    if (bytes === undefined || performance.now() > deadline) {
      const last = text.trim().split("\n").at(-1) ?? ""
      throw new AppError("unavailable", `QEMU does not run confined${last === "" ? "" : `: ${last}`}`)
    }
    await Bun.sleep(5)
  }
}
