/** Unix sockets as plain descriptors, over which another process can be given one of ours. Linux on x86-64 only. */

import { dlopen, FFIType, ptr } from "bun:ffi"
import { closeSync } from "node:fs"

const libc = dlopen("libc.so.6", {
  socket: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  connect: { args: [FFIType.i32, FFIType.ptr, FFIType.u32], returns: FFIType.i32 },
  setsockopt: {
    args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.u32],
    returns: FFIType.i32,
  },
  recvmsg: { args: [FFIType.i32, FFIType.ptr, FFIType.i32], returns: FFIType.i64 },
  sendmsg: { args: [FFIType.i32, FFIType.ptr, FFIType.i32], returns: FFIType.i64 },
})

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_SEQPACKET = 5
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
/** Size of `sun_path`, with its final NUL. */
const SUN_PATH_BYTES = 108

/**
 * Connects without waiting. Returns undefined if the socket does not take the connection now: nobody listens, or too
 * many wait before us. The caller closes the descriptor.
 */
export function connectUnix(path: string, kind: "stream" | "packets" = "stream"): number | undefined {
  const name = Buffer.from(path)
  if (name.length >= SUN_PATH_BYTES) throw new Error(`socket path too long: ${path}`)
  const address = Buffer.alloc(2 + SUN_PATH_BYTES)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const type = kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET
  const fd = libc.symbols.socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
  if (fd < 0) throw new Error("socket failed")
  if (libc.symbols.connect(fd, ptr(address), address.length) === 0) return fd
  closeSync(fd)
  return undefined
}

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const headBytes = 16

/**
 * Sends the bytes with a duplicate of the descriptor. Returns false unless the socket took all of them at once: a part
 * would have taken the descriptor with it.
 */
export function sendDescriptor(socket: number, bytes: Uint8Array, descriptor: number): boolean {
  return sendDescriptors(socket, bytes, [descriptor])
}

/** Like `sendDescriptor`; the receiver gets them in that order. */
export function sendDescriptors(socket: number, bytes: Uint8Array, descriptors: readonly number[]): boolean {
  const length = headBytes + descriptors.length * 4
  const control = Buffer.alloc(Math.ceil(length / 8) * 8)
  control.writeBigUInt64LE(BigInt(length), 0)
  control.writeInt32LE(SOL_SOCKET, 8)
  control.writeInt32LE(SCM_RIGHTS, 12)
  for (const [index, fd] of descriptors.entries()) control.writeInt32LE(fd, headBytes + index * 4)
  const message = messageOf(bytes, descriptors.length === 0 ? undefined : control)
  return (
    Number(libc.symbols.sendmsg(socket, ptr(message.header), MSG_DONTWAIT | MSG_NOSIGNAL)) === bytes.length
  )
}

const SO_PASSCRED = 16
const SCM_CREDENTIALS = 2
const messageBytesMax = 4096
/** Room for the sender alone: the kernel closes descriptors that somebody sends along. */
const credentialsBytes = 32

/** Makes the kernel say who has sent each message that comes. */
export function askForSenders(socket: number): void {
  const yes = Buffer.from([1, 0, 0, 0])
  if (libc.symbols.setsockopt(socket, SOL_SOCKET, SO_PASSCRED, ptr(yes), yes.length) !== 0)
    throw new Error("setsockopt failed")
}

/** A message and its sender: pid and user as they are called here. */
export type Received = { bytes: Buffer; pid: number; uid: number }

/** Takes a message without waiting; "none": there is none now. */
export function receiveMessage(socket: number): Received | "none" | "end" {
  const bytes = Buffer.alloc(messageBytesMax)
  const control = Buffer.alloc(credentialsBytes)
  const message = messageOf(bytes, control)
  const count = Number(libc.symbols.recvmsg(socket, ptr(message.header), MSG_DONTWAIT))
  if (count < 0) return "none"
  if (count === 0) return "end"
  const isSender = control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_CREDENTIALS
  const [pid, uid] = isSender
    ? [control.readInt32LE(headBytes), control.readUInt32LE(headBytes + 4)]
    : [0, 0xffff_ffff]
  return { bytes: bytes.subarray(0, count), pid, uid }
}

/** A `msghdr`. The piece must live as long as it is used. */
function messageOf(bytes: Uint8Array, control: Buffer | undefined) {
  const piece = new BigUint64Array([BigInt(ptr(bytes)), BigInt(bytes.length)])
  // Name and its length, pieces and their number, control and its length, flags.
  const header = new BigUint64Array([
    ...[0n, 0n, BigInt(ptr(piece)), 1n],
    ...(control ? [BigInt(ptr(control)), BigInt(control.length)] : [0n, 0n]),
    0n,
  ])
  return { header, piece }
}
