/** Describes the host, so that a reader can judge the numbers. */

import { readFileSync } from "node:fs"
import { cpus, loadavg, release, totalmem } from "node:os"

export type HostFacts = {
  cpu: string
  memory: string
  system: string
  qemu: string
  /** Over the last minute, when the measurement began. */
  load: number
}

export function hostFacts(): HostFacts {
  const processors = cpus()
  return {
    cpu: `${processors.length} × ${processors[0]?.model.trim() ?? "unknown"}`,
    memory: `${Math.round(totalmem() / 1024 ** 3)} GiB`,
    system: `${distribution()}, Linux ${release()}`,
    qemu: qemuVersion(),
    load: loadavg()[0] ?? 0,
  }
}

function distribution(): string {
  return /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "Linux"
}

function qemuVersion(): string {
  const { stdout } = Bun.spawnSync(["qemu-system-x86_64", "--version"])
  return stdout.toString().split("\n")[0] ?? "unknown"
}
