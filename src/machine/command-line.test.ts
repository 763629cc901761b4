/**
 * QEMU's arguments, whatever it is started for: nothing that a user wrote, no device that reaches the shared memory,
 * no way out.
 */

import { describe, expect, test } from "bun:test"
import { descriptors, qemuArguments, type Role, type Topology } from "./command-line.ts"

const name = "sb_0123456789abcdef"
const kinds: [Role, "tap" | "user", "kvm" | "tcg", Topology][] = [
  ["template", "tap", "tcg", 3],
  ["clone", "tap", "tcg", 3],
  ["clone", "tap", "tcg", 2],
  ["clone", "user", "kvm", 3],
  ["boot", "tap", "kvm", 3],
  // The filter of each machine that is forked from it is the one that this asks for.
  ["zygote", "tap", "tcg", 3],
]

describe.each(kinds)("a %s with %s network under %s, topology %i", (role, network, accelerator, topology) => {
  const all = qemuArguments({ cpus: 2, memoryMib: 512, accelerator, network }, role, name, { topology })
  const text = all.join(" ")

  test("has no device that gives back or changes memory, which clones share", () => {
    expect(text).not.toMatch(
      /balloon|virtio-mem|virtio-pmem|vhost-user|free-page|vfio|ivshmem-doorbell|prealloc/,
    )
    expect(text).toContain("mem-merge=off")
    expect(text).toMatch(new RegExp(`id=ram,[^ ]*,share=${role === "template" ? "on" : "off"} `))
    // It shares a memory of its own with this host.
    expect(text.match(/share=on/g)).toHaveLength(role === "template" ? 2 : 1)
    expect(text).toContain(`id=shared,size=2M,mem-path=/proc/self/fd/${descriptors.shared},share=on`)
  })

  test("opens no file by a path of the host", () => {
    const ofKernel = all.indexOf("-append")
    const own = all.filter((_, index) => ofKernel < 0 || index !== ofKernel + 1)
    const paths = own.flatMap((one) => one.match(/(?:^|=)\/[^,]*/g) ?? [])
    expect(paths.length).toBeGreaterThan(3)
    for (const path of paths) expect(path.replace(/^=/, "")).toMatch(/^\/(dev\/fdset|proc\/self\/fd)\/\d+$/)
  })

  test("may start no program, gain no right, and says nothing to the host's network by itself", () => {
    const sandbox = all[all.indexOf("-sandbox") + 1]
    for (const rule of ["elevateprivileges", "spawn", "resourcecontrol", "obsolete"])
      expect(sandbox).toContain(`${rule}=deny`)
    expect(text).not.toMatch(/exec:|script=|helper=|tcp:|host(fwd|name)|guestfwd|-vnc|-spice|-gdb|\bsmb\b/)
    if (network === "user") expect(text).toContain("restrict=on")
  })
})

test("which disk lies on which is said, so no disk's own header is asked", () => {
  const disks = (role: Role) =>
    qemuArguments({ cpus: 1, memoryMib: 128, accelerator: "tcg", network: "tap" }, role, name, {
      topology: 3,
    }).filter((one) => one.startsWith("driver=qcow2"))
  for (const role of ["template", "clone", "boot"] as const) {
    expect(disks(role).length).toBeGreaterThan(0)
    for (const disk of disks(role)) expect(disk).toMatch(/backing=(base|template)(,|$)/)
  }
})
