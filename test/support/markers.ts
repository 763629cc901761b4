/** Markers in a sandbox's memory and on its disk, to see later whether they are still there. */

import type { Reply } from "./requests.ts"

const paths = { memory: "/dev/shm/marker", disk: "/workspace/marker" }

/** The value is there whole or not at all, and on the disk when the script has ended. */
export function markScript(part: keyof typeof paths, value: string): string {
  const path = paths[part]
  return `echo ${value} > ${path}.new && mv ${path}.new ${path} && sync`
}

export const readMarkersScript = `for f in ${paths.memory} ${paths.disk}; do cat $f 2>/dev/null || echo -; done`

const countPath = "/dev/shm/count"

/** Leaves a process behind that counts in memory. */
export const startCountingScript = `(i=0; while :; do i=$((i+1)); echo $i > ${countPath}; sleep 0.1; done) >/dev/null 2>&1 & echo started`

/** The file is empty for a moment each time that it is written. */
export const readCountScript = `count=; while [ -z "$count" ]; do count=$(cat ${countPath} 2>/dev/null); done; echo $count`

/**
 * Null: nothing was written. Nothing at all when the script was cut off; `more` is what it printed after the markers.
 */
export function readMarkers(
  reply: Reply,
): { memory: string | null; disk: string | null; more: string[] } | undefined {
  if (reply.status !== 200) return undefined
  const [memory, disk, ...more] = (reply.body as { stdout: string }).stdout.trim().split("\n")
  if (memory === undefined || disk === undefined) return undefined
  const value = (line: string) => (line === "-" ? null : line)
  return { memory: value(memory), disk: value(disk), more }
}
