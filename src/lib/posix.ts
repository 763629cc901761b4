/**
 * System calls that Bun lacks: sealed memory files, listening unix sockets as plain descriptors, TAP devices. Linux on
 * x86-64 only. Descriptors returned here belong to the caller, who closes them with `fs.closeSync`.
 */

import { dlopen, FFIType, ptr } from "bun:ffi"
import { closeSync, openSync } from "node:fs"

const libc = dlopen("libc.so.6", {
  memfd_create: { args: [FFIType.cstring, FFIType.u32], returns: FFIType.i32 },
  ftruncate: { args: [FFIType.i32, FFIType.i64], returns: FFIType.i32 },
  fcntl: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  fallocate: { args: [FFIType.i32, FFIType.i32, FFIType.i64, FFIType.i64], returns: FFIType.i32 },
  syscall: {
    args: [FFIType.i64, FFIType.i64, FFIType.i64, FFIType.i64],
    returns: FFIType.i64,
  },
  lseek: { args: [FFIType.i32, FFIType.i64, FFIType.i32], returns: FFIType.i64 },
  socket: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  bind: { args: [FFIType.i32, FFIType.ptr, FFIType.u32], returns: FFIType.i32 },
  listen: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
  pipe2: { args: [FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
  posix_fadvise: { args: [FFIType.i32, FFIType.i64, FFIType.i64, FFIType.i32], returns: FFIType.i32 },
  sync_file_range: { args: [FFIType.i32, FFIType.i64, FFIType.i64, FFIType.u32], returns: FFIType.i32 },
  setrlimit: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  prlimit: { args: [FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
  umask: { args: [FFIType.u32], returns: FFIType.u32 },
  clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
})

/**
 * Throws if a system call failed. `errno` is not reported: the JavaScript engine may call libc in between and change
 * it.
 */
function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what} failed`)
  return result
}

const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
const F_SEAL_SEAL = 1
const F_SEAL_SHRINK = 2
const F_SEAL_GROW = 4
const F_SEAL_WRITE = 8
const fixedSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL

/** Creates an anonymous, zeroed memory file of fixed size, not yet sealed. */
export function createMemoryFile(options: { name: string; bytes: number }): number {
  const fd = check(
    libc.symbols.memfd_create(Buffer.from(`${options.name}\0`), MFD_CLOEXEC | MFD_ALLOW_SEALING),
    "memfd_create",
  )
  check(libc.symbols.ftruncate(fd, options.bytes), "ftruncate")
  return fd
}

/** Seals the file's content and size; private mappings stay writable. Fails while a shared writable mapping exists. */
export function sealMemoryFile(fd: number): void {
  check(libc.symbols.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "seal")
}

/** Seals the file's size for all holders; its content stays writable. */
export function fixMemoryFile(fd: number): void {
  check(libc.symbols.fcntl(fd, F_ADD_SEALS, fixedSeals), "seal")
}

const F_GET_SEALS = 1034

/**
 * Returns whether the descriptor is a memory file as made by `fixMemoryFile`. A host may also seal all memory files
 * against execution.
 */
export function isFixedMemoryFile(fd: number): boolean {
  const seals = libc.symbols.fcntl(fd, F_GET_SEALS, 0)
  return seals >= 0 && (seals & (fixedSeals | F_SEAL_WRITE)) === fixedSeals
}

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2

/**
 * Frees the file's blocks in that range, which then reads as zeros. Returns false if that is not supported; the content
 * then stays.
 */
export function punchHole(fd: number, { offset, bytes }: { offset: number; bytes: number }): boolean {
  return libc.symbols.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) === 0
}

const SYS_pidfd_open = 434
const SYS_pidfd_getfd = 438

/**
 * Duplicates another process's descriptor: the same open file, with its original access rights. Opening /proc/PID/fd/N
 * would reopen the path with our own rights.
 */
export function borrowDescriptor(options: { pid: number; fd: number }): number {
  const process = check(Number(libc.symbols.syscall(SYS_pidfd_open, options.pid, 0, 0)), "pidfd_open")
  try {
    return check(Number(libc.symbols.syscall(SYS_pidfd_getfd, process, options.fd, 0)), "pidfd_getfd")
  } finally {
    closeSync(process)
  }
}

const SEEK_SET = 0

/** Moves the offset of the open file, which all its holders share, to the start. Returns whether that succeeded. */
export function rewind(fd: number): boolean {
  return Number(libc.symbols.lseek(fd, 0, SEEK_SET)) === 0
}

const SEEK_END = 2
const SEEK_DATA = 3
const SEEK_HOLE = 4

/** Returns the next data extent of a sparse file at or after `offset`, or undefined. */
export function nextExtent(options: {
  fd: number
  offset: number
}): { start: number; end: number } | undefined {
  const start = Number(libc.symbols.lseek(options.fd, options.offset, SEEK_DATA))
  if (start < 0) {
    // A failing file system reports the same as one without more data.
    const isInside = options.offset < Number(libc.symbols.lseek(options.fd, 0, SEEK_END))
    if (isInside) check(Number(libc.symbols.lseek(options.fd, options.offset, SEEK_HOLE)), "lseek")
    return undefined
  }
  const end = Number(libc.symbols.lseek(options.fd, start, SEEK_HOLE))
  return { start, end: check(end, "lseek") }
}

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_SEQPACKET = 5
const SOCK_CLOEXEC = 0o2000000
/** Size of `sun_path`, with its final NUL. */
const SUN_PATH_BYTES = 108

/**
 * Creates a listening unix socket at `path`, mode 0600, as a descriptor that another process can inherit. Connections
 * made before that process accepts wait in the backlog, so no client has to poll for the socket.
 */
export function listenUnix(path: string, kind: "stream" | "packets" = "stream"): number {
  const name = Buffer.from(path)
  if (name.length >= SUN_PATH_BYTES)
    throw new Error(`socket path has ${name.length} bytes, at most ${SUN_PATH_BYTES - 1} fit: ${path}`)
  const address = Buffer.alloc(2 + SUN_PATH_BYTES)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const type = kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET
  const fd = check(libc.symbols.socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket")
  const maskBefore = libc.symbols.umask(0o177)
  const bound = libc.symbols.bind(fd, ptr(address), address.length)
  libc.symbols.umask(maskBefore)
  if (bound < 0) {
    closeSync(fd)
    throw new Error(`cannot bind ${path}`)
  }
  check(libc.symbols.listen(fd, 8), "listen")
  return fd
}

const RLIMIT_CORE = 4
/** With 0 a kernel that pipes core files to a program would still do so; 1 disables that too. */
const coreBytesMax = 1n

/** Prevents core dumps of this process and its children. */
export function forbidCoreFiles(): void {
  check(
    libc.symbols.setrlimit(RLIMIT_CORE, ptr(new BigUint64Array([coreBytesMax, coreBytesMax]))),
    "setrlimit",
  )
}

const RLIMIT_FSIZE = 1

/** Sets another process's limit on the length of files. Returns false if this process lacks the right to. */
export function limitFileBytes(pid: number, bytes: number): boolean {
  const limit = new BigUint64Array(2).fill(BigInt(bytes))
  return libc.symbols.prlimit(pid, RLIMIT_FSIZE, ptr(limit), null) === 0
}

const SYS_getpriority = 140
const PRIO_USER = 2

/** Tells whether any process of the host has this real user id. Takes a microsecond however many there are. */
export function hasProcesses(uid: number): boolean {
  return Number(libc.symbols.syscall(SYS_getpriority, PRIO_USER, uid, 0)) >= 0
}

const LOCK_EX = 2
const LOCK_NB = 4

/**
 * Takes the file's exclusive lock without waiting; returns false if another process holds it. Held until the descriptor
 * is closed.
 */
export function tryLock(fd: number): boolean {
  return libc.symbols.flock(fd, LOCK_EX | LOCK_NB) === 0
}

const POSIX_FADV_WILLNEED = 3
const SYNC_FILE_RANGE_WRITE = 2

/** Advises the kernel to read a file ahead. */
export function readAhead(path: string): void {
  const fd = openSync(path, "r")
  try {
    libc.symbols.posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED)
  } finally {
    closeSync(fd)
  }
}

/** Advises the kernel to start writing out dirty pages, so that a later sync waits less. */
export function startWriteback(fd: number, offset: number, bytes: number): void {
  libc.symbols.sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WRITE)
}

const TUNSETIFF = 0x4004_54ca
const IFF_TAP = 0x0002
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const INTERFACE_NAME_BYTES = 16

/** Creates the TAP device `name`, which exists as long as some process holds the returned descriptor. */
export function openTap(name: string): number {
  if (Buffer.byteLength(name) >= INTERFACE_NAME_BYTES) throw new Error(`interface name too long: ${name}`)
  const fd = openSync("/dev/net/tun", "r+")
  const request = Buffer.alloc(40)
  request.write(name, 0, "latin1")
  request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, INTERFACE_NAME_BYTES)
  if (libc.symbols.ioctl(fd, TUNSETIFF, ptr(request)) < 0) {
    closeSync(fd)
    throw new Error(`cannot create the TAP device ${name}`)
  }
  return fd
}

const FIONREAD = 0x541b

/** Bytes that can be read from a pipe or a socket now. */
export function waitingBytes(fd: number): number {
  const count = new Int32Array(1)
  check(libc.symbols.ioctl(fd, FIONREAD, ptr(count)), "ioctl FIONREAD")
  return count[0] ?? 0
}

const O_CLOEXEC = 0o2000000

/** Creates a pipe. Both ends are closed on exec, unless passed to the program. */
const F_SETFL = 4
const O_NONBLOCK = 0o4000

/** Makes writes fail at once when there is no room. */
export function neverWaitAt(fd: number): void {
  check(libc.symbols.fcntl(fd, F_SETFL, O_NONBLOCK), "fcntl")
}

export function createPipe(): { readFd: number; writeFd: number } {
  const ends = new Int32Array(2)
  check(libc.symbols.pipe2(ptr(ends), O_CLOEXEC), "pipe")
  const [readFd = -1, writeFd = -1] = ends
  return { readFd, writeFd }
}

const CLOCK_MONOTONIC = 1

/** The kernel's monotonic clock, the same for every process of a boot; it stands still while the host is suspended. */
export function monotonicMs(): number {
  const time = new BigInt64Array(2)
  check(libc.symbols.clock_gettime(CLOCK_MONOTONIC, ptr(time)), "clock_gettime")
  return Number(time[0]) * 1000 + Number(time[1]) / 1e6
}
