/**
 * Proves before the first machine that QEMU can be confined on this host as the configuration wants: QEMU is started in
 * the jail once, to say its version. Where it cannot, the daemon does not serve.
 */

import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "../contract/errors.ts"
import type { QemuBuild } from "./fingerprint.ts"
import { type Jail, prepareJail } from "./jail.ts"
import { type Confinement, launch } from "./process.ts"

const proofDeadlineMs = 10_000

export async function openJail(options: {
  dataDir: string
  qemu: QemuBuild
  launcher: string
  level: Confinement["level"]
  uid: number | undefined
}): Promise<Jail> {
  const { dataDir, qemu, level, uid } = options
  const jail = await prepareJail({ dataDir, program: qemu.binary, launcher: options.launcher })
  const logPath = join(dataDir, "jail", "proof.log")
  rmSync(logPath, { force: true })
  try {
    const confinement = { jail, level, uid, groups: [], devices: ["/dev/null"], cgroup: undefined }
    await launch({ binary: qemu.binary, arguments: ["--version"], files: {}, confinement, logPath })
    await waitForVersion(logPath, qemu)
  } catch (cause) {
    if (!(cause instanceof AppError) || level === "reduced") throw cause
    throw new AppError("unavailable", cause.message, {
      cause,
      hint: "see what bhatti doctor says of namespaces, or accept less: confinement: reduced in config.yaml",
      retryable: false,
    })
  } finally {
    rmSync(logPath, { force: true })
  }
  return jail
}

async function waitForVersion(logPath: string, qemu: QemuBuild): Promise<void> {
  const deadline = Date.now() + proofDeadlineMs
  while (!readFileSync(logPath, "utf8").includes(qemu.version)) {
    if (Date.now() > deadline) {
      const words = readFileSync(logPath, "utf8").trim().split("\n").at(-1) ?? ""
      throw new AppError("unavailable", `QEMU does not run confined${words === "" ? "" : `: ${words}`}`)
    }
    await Bun.sleep(5)
  }
}
