/**
 * A daemon that stays small: the engine lets garbage pile up in proportion to the host's memory, which a transfer of
 * gigabytes, garbage at every hop, turns into many times what is in use. Told that it has little, it collects in time. It
 * reads that when a process starts, so this one starts again in its own place, with the same pid.
 */

/** With 64 MiB 100 MB up and down take about 24 MB more at their peak instead of 70. */
const memoryOption = "BUN_JSC_forceRAMSize"
const pretendedBytes = 64 * 1024 * 1024
/**
 * When what is young may take less than this part of the heap, everything is collected instead of the young alone. So small a
 * heap gives the young a fifth: with the engine's own third, each second collection is one of everything.
 */
const youngOption = "BUN_JSC_minEdenToOldGenerationRatio"
const youngMin = 0.15
/** Freed memory goes back to the host at once, not a moment later: of pieces of a megabyte many are freed in that moment. */
const purgeOption = "MIMALLOC_PURGE_DELAY"

/** Returns only when nothing was to be done: in the process that was started so, or run from sources. */
export function keepHeapSmall(): void {
  const isCompiled = Bun.main.startsWith("/$bunfs/")
  if (!isCompiled || process.env[memoryOption] !== undefined) return
  const environment = {
    [youngOption]: String(youngMin),
    [purgeOption]: "0",
    ...process.env,
    [memoryOption]: String(pretendedBytes),
  }
  process.execve?.(process.execPath, [process.argv0, ...process.argv.slice(2)], environment)
}
