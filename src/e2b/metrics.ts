/** Metrics of a running sandbox, read in its guest. */

import type { Core, ForRequest } from "../core/core.ts"
import { execInSandbox } from "../core/processes.ts"
import type { Sandbox } from "../core/sandbox.ts"
import type { Account } from "../store/users.ts"

const timeoutSec = 5
const textMax = 16_384
const script =
  "head -1 /proc/stat; sleep 0.1; head -1 /proc/stat; grep -E '^(MemTotal|MemAvailable|Cached):' /proc/meminfo; df -k -P / | tail -1"

export async function metricsOf(
  core: ForRequest & Pick<Core, "metrics">,
  account: Account,
  sandbox: Sandbox,
) {
  const { process, result } = await execInSandbox(core, account, sandbox.id, {
    command: { argv: ["sh", "-c", script], user: "root" },
    timeoutSec,
  })
  let text = ""
  for await (const { bytes } of process.output)
    if (text.length < textMax) text += Buffer.from(bytes).toString("latin1")
  await result
  const unixMs = core.clock.unixMs()
  return {
    timestamp: new Date(unixMs).toISOString(),
    timestampUnix: Math.floor(unixMs / 1000),
    ...readMetrics(text, sandbox),
  }
}

/** The guest has written the text, so anything may be in it: what cannot be read is 0. */
export function readMetrics(
  text: string,
  { cpus, memoryMib, diskMib }: Pick<Sandbox, "cpus" | "memoryMib" | "diskMib">,
) {
  const lines = text.split("\n")
  const [before, after] = lines.filter((line) => /^cpu +/.test(line)).map(cpuTimes)
  const kib = (name: string) => count(lines.find((line) => line.startsWith(`${name}:`))?.match(/\d+/)?.[0])
  const disk = lines.find((line) => /^\S+ +\d+ +\d+ +\d+ +\d+% /.test(line))?.split(/ +/) ?? []
  const memTotal = kib("MemTotal") * 1024 || memoryMib * 1024 * 1024
  return {
    cpuCount: cpus,
    cpuUsedPct: before && after ? usedShare(before, after) : 0,
    memTotal,
    memUsed: Math.max(0, memTotal - kib("MemAvailable") * 1024),
    memCache: kib("Cached") * 1024,
    diskTotal: count(disk[1]) * 1024 || diskMib * 1024 * 1024,
    diskUsed: count(disk[2]) * 1024,
  }
}

type CpuTimes = { all: number; idle: number }

function cpuTimes(line: string): CpuTimes {
  const [, ...fields] = line.split(/ +/)
  const times = fields.map(count)
  return { all: times.reduce((sum, one) => sum + one, 0), idle: (times[3] ?? 0) + (times[4] ?? 0) }
}

function usedShare(before: CpuTimes, after: CpuTimes): number {
  const all = after.all - before.all
  if (all <= 0) return 0
  return Math.round(Math.min(100, Math.max(0, 100 * (1 - (after.idle - before.idle) / all))) * 100) / 100
}

function count(text: string | undefined): number {
  const value = Number(text)
  return Number.isSafeInteger(value) && value >= 0 ? value : 0
}
