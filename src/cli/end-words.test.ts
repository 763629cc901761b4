/** Sentences about ends of commands. */

import { expect, test } from "bun:test"
import { endWords } from "./end-words.ts"

const python = { pid: 412, name: "python3", memory_mb: 412, guest_memory_mb: 470, in_cgroup: false }
const end = { exit_code: 137, signal: "KILL", timed_out: false, by: "kernel", detail: null }
const exit = { ...end, signal: null, reason: "exited", by: null }

test.each([
  [
    "the command itself had too much memory",
    { ...end, reason: "out_of_memory", detail: { memory_kills: [python] } },
    "the command was killed: the sandbox ran out of memory: python3 had 412 MiB of 470; for more: bhatti create --memory 1024",
  ],
  [
    "a child of it",
    { ...exit, detail: { memory_kills: [python] } },
    "the sandbox ran out of memory: python3 had 412 MiB of 470; for more: bhatti create --memory 1024",
  ],
  [
    "a control group of the user's own",
    { ...exit, detail: { memory_kills: [{ ...python, in_cgroup: true }] } },
    "a control group in the sandbox ran out of memory: python3 had 412 MiB",
  ],
  [
    "the disk is full",
    { ...exit, exit_code: 1, detail: { disk_full: "space" } },
    "the sandbox's disk is full",
  ],
  [
    "no inode is left",
    { ...exit, exit_code: 1, detail: { disk_full: "inodes" } },
    "the sandbox's disk has no room for more files",
  ],
  ["the time limit", { ...end, timed_out: true }, "the command was killed: its --timeout is over"],
  [
    "a kill from inside",
    { ...end, reason: "signal", by: "guest" },
    "the command was killed by SIGKILL from inside the sandbox",
  ],
  [
    "a kill by another request",
    { ...end, reason: "signal", by: "client" },
    "the command was killed by a request of yours",
  ],
  ["another signal", { ...end, exit_code: 139, signal: "SEGV", reason: "signal" }, undefined],
  ["a plain exit", { ...exit, exit_code: 3 }, undefined],
  ["an exit with 0 on a full disk", { ...exit, exit_code: 0, detail: { disk_full: "space" } }, undefined],
  ["an older daemon", { exit_code: 137, signal: "KILL", timed_out: false }, undefined],
] as const)("%s", (_, ended, words) => {
  expect(endWords(ended as Parameters<typeof endWords>[0])).toBe(words)
})
