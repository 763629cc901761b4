/** The archive is read back by the format's own rules; that the kernel can read it is seen when a machine boots. */
import { expect, test } from "bun:test"
import { type CpioEntry, packCpio } from "./cpio.ts"

const entries: CpioEntry[] = [
  { kind: "directory", path: "modules", mode: 0o755 },
  { kind: "character-device", path: "console", mode: 0o600, major: 5, minor: 1 },
  { kind: "file", path: "modules/order", mode: 0o644, content: Buffer.from("virtio.ko\n") },
  { kind: "file", path: "init", mode: 0o755, content: Buffer.from("\x7fELF and more") },
]

test("headers, names and contents start at multiples of four", () => {
  const archive = packCpio(entries)
  const found: { name: string; mode: number; content: string }[] = []
  let at = 0
  for (;;) {
    const field = (index: number) =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16)
    expect(archive.toString("latin1", at, at + 6)).toBe("070701")
    const nameEnd = at + 110 + field(11)
    const name = archive.toString("latin1", at + 110, nameEnd - 1)
    if (name === "TRAILER!!!") break
    const start = Math.ceil(nameEnd / 4) * 4
    found.push({ name, mode: field(1), content: archive.toString("latin1", start, start + field(6)) })
    at = Math.ceil((start + field(6)) / 4) * 4
  }
  expect(found).toEqual([
    { name: "modules", mode: 0o040755, content: "" },
    { name: "console", mode: 0o020600, content: "" },
    { name: "modules/order", mode: 0o100644, content: "virtio.ko\n" },
    { name: "init", mode: 0o100755, content: "\x7fELF and more" },
  ])
})

test("the same entries give the same bytes", () => {
  expect(packCpio(entries).equals(packCpio(entries))).toBe(true)
})
