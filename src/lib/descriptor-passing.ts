/** Unix sockets as plain descriptors, over which another process can be given one of ours. Linux on x86-64 only. */

import { dlopen, FFIType, ptr } from "bun:ffi"
import { closeSync } from "node:fs"

const libc = dlopen("libc.so.6", {
  socket: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  connect: { args: [FFIType.i32, FFIType.ptr, FFIType.u32], returns: FFIType.i32 },
  sendmsg: { args: [FFIType.i32, FFIType.ptr, FFIType.i32], returns: FFIType.i64 },
})

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
/** Size of `sun_path`, with its final NUL. */
const SUN_PATH_BYTES = 108

/**
 * Connects without waiting. Returns undefined if the socket does not take the connection now: nobody listens, or too
 * many wait before us. The caller closes the descriptor.
 */
export function connectUnix(path: string): number | undefined {
  const name = Buffer.from(path)
  if (name.length >= SUN_PATH_BYTES) throw new Error(`socket path too long: ${path}`)
  const address = Buffer.alloc(2 + SUN_PATH_BYTES)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const fd = libc.symbols.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
  if (fd < 0) throw new Error("socket failed")
  if (libc.symbols.connect(fd, ptr(address), address.length) === 0) return fd
  closeSync(fd)
  return undefined
}

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
/** A `cmsghdr` of one descriptor, padded to the size that the kernel expects. */
const controlBytes = 24
const controlLength = 20

/**
 * Sends the bytes with a duplicate of the descriptor. Returns false unless the socket took all of them at once: a part
 * would have taken the descriptor with it.
 */
export function sendDescriptor(socket: number, bytes: Uint8Array, descriptor: number): boolean {
  const control = Buffer.alloc(controlBytes)
  control.writeBigUInt64LE(BigInt(controlLength), 0)
  control.writeInt32LE(SOL_SOCKET, 8)
  control.writeInt32LE(SCM_RIGHTS, 12)
  control.writeInt32LE(descriptor, 16)
  const piece = new BigUint64Array([BigInt(ptr(bytes)), BigInt(bytes.length)])
  // Name and its length, pieces and their number, control and its length, flags.
  const message = new BigUint64Array([
    0n,
    0n,
    BigInt(ptr(piece)),
    1n,
    BigInt(ptr(control)),
    BigInt(controlBytes),
    0n,
  ])
  return Number(libc.symbols.sendmsg(socket, ptr(message), MSG_DONTWAIT | MSG_NOSIGNAL)) === bytes.length
}
