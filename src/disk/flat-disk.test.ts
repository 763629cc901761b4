/** The disk that a sandbox reads through three files, as one file. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { open, stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { flattenDisk } from "./flat-disk.ts"

const kibibyte = 1024
const mebibyte = 1024 * kibibyte
const here = mkdtempSync("/tmp/bhatti-flat-disk-")
afterAll(() => rmSync(here, { recursive: true }))

const base = join(here, "base.raw")
const template = join(here, "template.qcow2")
const overlay = join(here, "overlay.qcow2")
const flat = join(here, "flat.raw")

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command)
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`)
}
const io = (path: string, ...commands: string[]) =>
  run("qemu-io", "-f", "qcow2", ...commands.flatMap((one) => ["-c", one]), path)

beforeEach(() => {
  for (const path of [base, template, overlay, flat]) rmSync(path, { force: true })
  writeFileSync(base, Buffer.concat([Buffer.alloc(mebibyte, 1), Buffer.alloc(mebibyte)]))
  run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", template, "2M")
  run("qemu-img", "create", "-q", "-f", "qcow2", "-b", template, "-F", "qcow2", overlay, "4M")
})
const flatten = () =>
  flattenDisk({ base, differences: [template, overlay] }, flat, { signal: AbortSignal.timeout(30_000) })

test("a flat disk equals the layered one as QEMU reads it, also where it was zeroed and where it grew", async () => {
  io(template, "write -P 2 64k 128k", "write -P 3 1M 64k")
  io(overlay, "write -P 4 100k 10k", "write -z -u 1M 64k", "write -P 5 3M 5k", "write -z 256k 64k")
  await flatten()
  run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", flat, overlay)
  expect((await stat(flat)).size).toBe(4 * mebibyte)
})

test("a flat disk takes space only for what differs from zeros", async () => {
  io(overlay, "write -z -u 0 1M")
  await flatten()
  expect((await stat(flat)).blocks).toBe(0)
})

test("a flat disk is never made of a file that names another one or holds compressed clusters", async () => {
  const compressed = join(here, "compressed.qcow2")
  run("qemu-img", "convert", "-c", "-O", "qcow2", "-f", "raw", base, compressed)
  run("cp", compressed, overlay)
  expect(await flatten().catch((error: unknown) => error)).toBeInstanceOf(AppError)
  rmSync(flat, { force: true })
  run(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    `data_file=${join(here, "data")}`,
    "-b",
    template,
    "-F",
    "qcow2",
    compressed,
    "4M",
  )
  run("cp", compressed, overlay)
  expect(await flatten().catch((error: unknown) => error)).toBeInstanceOf(AppError)
})

test("a header's own backing file is not read", async () => {
  const secret = join(here, "secret")
  writeFileSync(secret, Buffer.alloc(2 * mebibyte, 9))
  rmSync(overlay)
  run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", overlay, "2M")
  await flatten()
  await using file = await open(flat, "r")
  const { buffer } = await file.read(Buffer.alloc(kibibyte), 0, kibibyte, 0)
  expect(buffer).toEqual(Buffer.alloc(kibibyte, 1))
})
