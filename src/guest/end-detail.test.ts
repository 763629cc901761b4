/** Reports of kills for memory: bounded, and no report is believed that cannot be. */

import { expect, test } from "bun:test"
import { parseDetail, parseMemoryNotice } from "./end-detail.ts"

const told = {
  ...{ pid: 412, name: "python3", session: 398, in_cgroup: false },
  ...{ anon_kib: 421_888, file_kib: 4, shmem_kib: 8, memory_kib: 481_280, unix_ms: 1_700_000_000_000 },
}
const known = {
  ...{ pid: 412, name: "python3", session: 398, inCgroup: false },
  ...{ anonKib: 421_888, fileKib: 4, shmemKib: 8, memoryKib: 481_280, unixMs: 1_700_000_000_000 },
}

test("a notice and a detail are read", () => {
  expect(parseMemoryNotice(Buffer.from(JSON.stringify({ memory_kill: told })))).toEqual(known)
  expect(parseDetail({ memory_kills: [told], disk_full: "inodes" })).toEqual({
    memoryKills: [known],
    diskFull: "inodes",
  })
})

test("what cannot be read is left out", () => {
  expect(parseMemoryNotice(Buffer.from('{"ended":{}}'))).toBeUndefined()
  for (const bad of [{ pid: -1 }, { anon_kib: 1.5 }, { memory_kib: "x" }, { name: 7 }, { unix_ms: null }])
    expect(parseDetail({ memory_kills: [{ ...told, ...bad }] })).toBeNull()
  expect(parseDetail(null)).toBeNull()
  expect(parseDetail({ disk_full: "everything", memory_kills: 7 })).toBeNull()
  const many = parseDetail({ memory_kills: Array(100).fill({ ...told, name: "x".repeat(10_000) }) })
  expect(many?.memoryKills).toHaveLength(4)
  expect(many?.memoryKills[0]?.name).toHaveLength(64)
})
