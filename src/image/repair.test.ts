/** The initramfs of a repair, made of an ordinary one. */

import { expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { packCpio } from "./cpio.ts"
import { repairKernel } from "./repair.ts"

test("a repair's initramfs has the ordinary one's files, and e2fsck with its loader and libraries", async () => {
  const home = mkdtempSync("/tmp/bhatti-repair-")
  try {
    const initramfs = join(home, "initramfs")
    writeFileSync(
      initramfs,
      packCpio([{ kind: "file", path: "init", mode: 0o755, content: Buffer.from("agent") }]),
    )
    using kernel = await repairKernel({ hash: "kernel", vmlinux: "/vmlinux", initramfs })
    expect(kernel.arguments).toEqual(["bhatti.repair"])
    const bytes = readFileSync(kernel.initramfs)
    expect(bytes.subarray(0, 6).toString()).toBe("070701")
    expect(bytes.length % 512).toBe(0)
    for (const name of ["init", "repair/e2fsck", "repair/ld.so", "repair/libc.so.6", "repair/libext2fs.so.2"])
      expect(bytes.includes(`${name}\0`), name).toBe(true)
  } finally {
    rmSync(home, { recursive: true })
  }
})
