/**
 * A sandbox's file system as its disk alone has it, looked at on the host, without its memory and without its guest.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import type { Installation } from "./installation.ts"

export type Ran = { exitCode: number | null; words: string }

function run(command: string[], cwd?: string): Ran {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, cwd === undefined ? {} : { cwd })
  return { exitCode, words: exitCode === 0 ? "" : `${command[0]}: ${stdout}${stderr}` }
}

/**
 * As a host that lost power would leave it: the journal is replayed, then nothing may be wrong. `check` is a shell
 * script that then runs in a copy of a directory of it, and must succeed.
 */
export function checkFilesystem(
  own: Installation,
  disk: string,
  { of, check }: { of?: string; check?: string } = {},
): Ran {
  const directory = mkdtempSync(join(own.dataDir, "fsck-"))
  try {
    const template = join(own.dataDir, "templates", readdirSync(join(own.dataDir, "templates"))[0] ?? "")
    const manifest = JSON.parse(readFileSync(join(template, "manifest.json"), "utf8"))
    const image = join(own.dataDir, manifest.image.file)
    const raw = join(directory, "disk.raw")
    const source = [
      "driver=qcow2",
      `file.filename=${disk}`,
      "backing.driver=qcow2",
      `backing.file.filename=${join(template, "disk.qcow2")}`,
      "backing.backing.driver=raw",
      `backing.backing.file.filename=${image}`,
    ].join(",")
    const commands = [
      ["qemu-img", "convert", "--image-opts", source, "-O", "raw", raw],
      ["e2fsck", "-y", "-E", "journal_only", raw],
      ["e2fsck", "-fn", raw],
      ...(of === undefined ? [] : [["debugfs", "-R", `rdump ${of} ${directory}`, raw]]),
    ]
    for (const command of commands) {
      const ran = run(command)
      if (ran.exitCode !== 0) return ran
    }
    if (of === undefined || check === undefined) return { exitCode: 0, words: "" }
    return run(["sh", "-c", check], join(directory, basename(of)))
  } finally {
    rmSync(directory, { recursive: true })
  }
}
