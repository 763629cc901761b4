/**
 * How a machine reaches `/dev/kvm`, which QEMU opens by that path and as the machine's user. The KVM probe uses the
 * same code, so that it starts as machines do.
 */

import { type Stats, statSync } from "node:fs"
import { deviceState } from "../lib/preflight.ts"
import type { Confinement } from "./process.ts"

export const kvmDevice = "/dev/kvm"

export type DeviceAccess = Required<Pick<Confinement, "groups" | "devices" | "ownDevices">>

const everybody = 0o006
const group = 0o060

/**
 * Returns the host's own node if its mode admits the machine's user, through its group if necessary. Otherwise
 * (without udev's rules the node is 0600 of root) returns a node owned by that user, which requires a jail.
 */
export function kvmAccess(
  { uid, level }: Pick<Confinement, "uid" | "level">,
  node: Pick<Stats, "mode" | "gid"> = statSync(kvmDevice),
): DeviceAccess {
  const shown = { groups: [], devices: [kvmDevice], ownDevices: [] }
  if (uid === undefined || includes(node.mode, everybody)) return shown
  // No machine gets root's group, even if that group would open the device.
  if (includes(node.mode, group) && node.gid !== 0) return { ...shown, groups: [node.gid] }
  return level === "full" ? { groups: [], devices: [], ownDevices: [kvmDevice] } : shown
}

function includes(mode: number, bits: number): boolean {
  return (mode & bits) === bits
}

/** Returns the error the daemon gets when it opens the device, or undefined if it opens. */
export function deviceProblem(path = kvmDevice): string | undefined {
  const state = deviceState(path)
  if (state === "opens") return undefined
  return `${kvmDevice} ${state === "missing" ? "is missing" : "cannot be opened"}`
}

/** Changes if the device is created again, for example when its module is reloaded, or changes owner. */
export function deviceIdentity(path = kvmDevice): string {
  const { ino, rdev, mode, uid, gid } = statSync(path)
  return [ino, rdev, mode.toString(8), uid, gid].join(" ")
}
