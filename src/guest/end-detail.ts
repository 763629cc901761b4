/** Kills for memory and the circumstances of an end, as a guest tells them. */

import type { EndDetail, MemoryKill } from "@bhatti/contract/guest"
import { isObject, parseObject } from "./message.ts"

/** Limits on the text and the lists of a guest. */
const nameMax = 64
const killsMax = 4

/** Returns undefined for a message of another kind. */
export function parseMemoryNotice(payload: Uint8Array): MemoryKill | undefined {
  return parseKill(parseObject(payload).memory_kill)
}

/** Unreadable circumstances are dropped: the end itself is known. */
export function parseDetail(value: unknown): EndDetail | null {
  if (!isObject(value)) return null
  const { memory_kills: kills, disk_full: full } = value
  const memoryKills = (Array.isArray(kills) ? kills : []).slice(0, killsMax).flatMap((kill) => {
    const known = parseKill(kill)
    return known ? [known] : []
  })
  const diskFull = full === "space" || full === "inodes" ? full : undefined
  return memoryKills.length > 0 || diskFull ? { memoryKills, diskFull } : null
}

function parseKill(value: unknown): MemoryKill | undefined {
  if (!isObject(value) || typeof value.name !== "string") return undefined
  const { pid, session, anon_kib, file_kib, shmem_kib, memory_kib, unix_ms } = value
  const numbers = [pid, session, anon_kib, file_kib, shmem_kib, memory_kib, unix_ms]
  if (!numbers.every((one): one is number => Number.isSafeInteger(one) && Number(one) >= 0)) return undefined
  return {
    name: value.name.slice(0, nameMax),
    pid: Number(pid),
    session: Number(session),
    inCgroup: value.in_cgroup === true,
    anonKib: Number(anon_kib),
    fileKib: Number(file_kib),
    shmemKib: Number(shmem_kib),
    memoryKib: Number(memory_kib),
    unixMs: Number(unix_ms),
  }
}
