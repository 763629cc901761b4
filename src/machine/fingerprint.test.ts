/** A saved state depends on the fingerprint's inputs: a change in any of them gives another fingerprint. */

import { expect, test } from "bun:test"
import type { MachineShape } from "./command-line.ts"
import { type QemuBuild, stateFingerprint, templateFingerprint } from "./fingerprint.ts"

const qemu: QemuBuild = {
  binary: "/usr/bin/qemu",
  version: "7.2.22",
  name: "7.2.22",
  identity: "7.2.22 1000 1",
}
const shape: MachineShape = { cpus: 1, memoryMib: 512, accelerator: "tcg", network: "tap" }
const options = { qemu, shape, kernelHash: "kernel", imageHash: "image" }

const otherShapes: MachineShape[] = [
  { ...shape, cpus: 2 },
  { ...shape, memoryMib: 513 },
  { ...shape, accelerator: "kvm" },
  { ...shape, network: "user" },
]
const otherQemus: QemuBuild[] = [
  { ...qemu, identity: "7.2.23 1000 1" },
  { ...qemu, identity: "7.2.22 1001 1" },
  { ...qemu, identity: "7.2.22 1000 2" },
]

test("a state fits the same QEMU and the same machine alone", () => {
  const all = [
    stateFingerprint(qemu, shape, 3),
    stateFingerprint(qemu, shape, 2),
    ...otherShapes.map((other) => stateFingerprint(qemu, other, 3)),
    ...otherQemus.map((other) => stateFingerprint(other, shape, 3)),
  ]
  expect(new Set(all).size).toBe(all.length)
  expect(stateFingerprint({ ...qemu }, { ...shape }, 3)).toBe(all[0] ?? "")
})

test("a template is another for another kernel or image, and for whatever its state does not fit", () => {
  const all = [
    options,
    { ...options, kernelHash: "another" },
    { ...options, imageHash: "another" },
    { ...options, kitHash: "a kit" },
    { ...options, kitHash: "another kit" },
    { ...options, authority: "another" },
    ...otherShapes.map((other) => ({ ...options, shape: other })),
    ...otherQemus.map((other) => ({ ...options, qemu: other })),
  ].map(templateFingerprint)
  expect(new Set(all).size).toBe(all.length)
  expect(all.every((one) => /^[0-9a-f]{16}$/.test(one))).toBe(true)
})

// Values that the former build has stored: with any other, each of its stopped sandboxes would lose its memory.
test("a state of topology 2 has the fingerprint that earlier versions gave it", () => {
  expect(stateFingerprint(qemu, shape, 2)).toBe("3763edcb1943214f")
  expect(templateFingerprint(options)).toBe("1d7f44e1ca0e215c")
})
