/** Which open files two processes share, as the kernel sees them. Linux on x86-64 only. */

import { dlopen, FFIType } from "bun:ffi"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"

const libc = dlopen("libc.so.6", {
  syscall: {
    args: [FFIType.i64, FFIType.i32, FFIType.i32, FFIType.i32, FFIType.i64, FFIType.i64],
    returns: FFIType.i64,
  },
})

const SYS_kcmp = 312
const KCMP_FILE = 0
const accessBits = 0o3

export type SharedFile = { fd: number; name: string; isWritable: boolean }

/** Lists the descriptors of `pid` whose open file, and not merely the same file, `other` has too. */
export function sharedOpenFiles(pid: number, other: number): SharedFile[] {
  const theirs = descriptorsOf(other)
  return descriptorsOf(pid)
    .filter((fd) => theirs.some((its) => isSame(pid, fd, other, its)))
    .map((fd) => ({
      fd,
      name: readlinkSync(`/proc/${pid}/fd/${fd}`),
      isWritable: (flagsOf(pid, fd) & accessBits) !== 0,
    }))
}

/** Lists the descriptors that both have by the same number, but not with the same status, such as waiting in a read. */
export function otherStatus(pid: number, other: number): number[] {
  const theirs = new Set(descriptorsOf(other))
  return descriptorsOf(pid).filter((fd) => theirs.has(fd) && flagsOf(pid, fd) !== flagsOf(other, fd))
}

/** Lists the files, by device and inode, of which both processes have a shared mapping. */
export function sharedMappings(pid: number, other: number): string[] {
  const theirs = new Set(mappedBy(other).map(({ file }) => file))
  return mappedBy(pid).flatMap(({ file, name }) => (theirs.has(file) ? [name] : []))
}

function isSame(pid: number, fd: number, other: number, its: number): boolean {
  const order = Number(libc.symbols.syscall(SYS_kcmp, pid, other, KCMP_FILE, fd, its))
  if (order < 0) throw new Error("kcmp failed")
  return order === 0
}

function descriptorsOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/fd`).map(Number)
}

function flagsOf(pid: number, fd: number): number {
  const text = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8")
  return Number.parseInt(/^flags:\s+(\d+)$/m.exec(text)?.[1] ?? "2", 8)
}

function mappedBy(pid: number): { file: string; name: string }[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")
  return lines.flatMap((line) => {
    const [, rights = "", device, inode, name = ""] = /^\S+ (\S+) \S+ (\S+) (\S+)\s*(.*)$/.exec(line) ?? []
    return rights.endsWith("s") ? [{ file: `${device} ${inode}`, name }] : []
  })
}
