/**
 * Keeps the daemon's heap small: the engine lets garbage grow in proportion to the host's memory, so that a transfer of
 * gigabytes takes many times the memory in use. A low configured memory size makes it collect earlier. The engine reads
 * that setting at its start, so this process executes itself again, with the same pid.
 */

/** With 64 MiB, transfers of 100 MB up and down peak about 24 MB higher instead of 70. */
const memoryOption = "BUN_JSC_forceRAMSize"
const pretendedBytes = 64 * 1024 * 1024
/**
 * If the nursery would get less than this share of the heap, the engine runs a full collection instead of a young one.
 * A heap this small leaves the nursery a fifth: with the engine's default of a third, every second collection would be
 * full.
 */
const youngOption = "BUN_JSC_minEdenToOldGenerationRatio"
const youngMin = 0.15
/** Returns freed memory to the host at once: during the default delay many more pieces of a megabyte are freed. */
const purgeOption = "MIMALLOC_PURGE_DELAY"

/** Returns only if there is nothing to do: in the re-executed process, or when run from sources. */
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
