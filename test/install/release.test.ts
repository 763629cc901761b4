/**
 * The output of `bun run release`. Signatures for macOS on a small program of that form here; with BHATTI_TEST_LONG=1
 * the whole release, its programs for arm64 run under qemu-user, and the client installed in a bare Debian. There is no
 * macOS here to run it on.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { checkSignature, readMachO, signAdHoc } from "../../scripts/mach-o.ts"
import { HostDownloads } from "../../src/downloads.ts"
import { Daemon } from "../cli/daemon.ts"
import { openHttpApp } from "../support/http-app.ts"

const root = resolve(import.meta.dir, "../..")

/** Two segments and an old signature that ends `codeBytes` into the file. */
function smallProgram(codeBytes: number): Buffer {
  const file = Buffer.alloc(codeBytes + 100)
  const [segmentBytes, signatureCommandBytes] = [72, 16]
  const words = [0xfeedfacf, 0x01000007, 3, 2, 3, 2 * segmentBytes + signatureCommandBytes]
  for (const [index, word] of words.entries()) file.writeUInt32LE(word, 4 * index)
  let at = 32
  for (const [name, offset, bytes] of [
    ["__TEXT", 0, 4096],
    ["__LINKEDIT", 4096, codeBytes + 100 - 4096],
  ] as const) {
    file.writeUInt32LE(0x19, at)
    file.writeUInt32LE(segmentBytes, at + 4)
    file.write(name, at + 8)
    file.writeBigUInt64LE(BigInt(offset), at + 40)
    file.writeBigUInt64LE(BigInt(bytes), at + 48)
    at += segmentBytes
  }
  for (const [index, word] of [0x1d, signatureCommandBytes, codeBytes, 100].entries())
    file.writeUInt32LE(word, at + 4 * index)
  for (let byte = 4096; byte < codeBytes; byte++) file[byte] = byte % 251
  return file
}

test("a program for macOS is signed so that every page and the end fit, and any changed byte is found", () => {
  for (const codeBytes of [8192, 8193, 12_000]) {
    const old = smallProgram(codeBytes)
    expect(checkSignature(old)).toBe("no signature where one should be")
    const signed = signAdHoc(old, "bhatti")
    expect(checkSignature(signed)).toBeUndefined()
    const { cpu, signature, segments } = readMachO(signed)
    expect([cpu, signature.offset, signature.offset + signature.bytes]).toEqual([
      "x64",
      codeBytes,
      signed.length,
    ])
    const last = segments.at(-1)
    expect((last?.fileOffset ?? 0) + (last?.fileBytes ?? 0)).toBe(signed.length)
    // The program's code is untouched, except where the signature is.
    expect(signed.subarray(4096, codeBytes).equals(old.subarray(4096, codeBytes))).toBe(true)
    for (const at of [100, 5000, codeBytes - 1]) {
      const changed = Buffer.from(signed)
      changed.writeUInt8((changed.readUInt8(at) + 1) % 256, at)
      expect(checkSignature(changed)).toMatch(/^page \d+ has another hash$/)
    }
    expect(checkSignature(Buffer.concat([signed, Buffer.alloc(1)]))).toBe(
      "the file goes on behind its signature",
    )
  }
})

const isLong = process.env["BHATTI_TEST_LONG"] === "1"
if (!isLong) console.error("BHATTI_TEST_LONG=1 also makes a whole release and runs it")
const sysroot = "/usr/aarch64-linux-gnu"

describe.if(isLong)("a whole release", () => {
  let home = ""
  beforeAll(() => {
    home = mkdtempSync(join(tmpdir(), "bhatti-release-"))
    const made = Bun.spawnSync(
      [
        process.execPath,
        "run",
        "scripts/release.ts",
        "--quick",
        "--out",
        join(home, "release"),
        "--from",
        "https://example.com/bhatti",
      ],
      { cwd: root },
    )
    if (made.exitCode !== 0) throw new Error(made.stderr.toString())
  }, 600_000)
  afterAll(() => rmSync(home, { recursive: true }), 120_000)

  const path = (name: string) => join(home, "release", name)
  const unpacked = (name: string) => Buffer.from(Bun.gunzipSync(readFileSync(path(`${name}.gz`))))

  test("has all platforms, the server, the script for its address, and checksums that fit", () => {
    expect(readdirSync(join(home, "release")).sort()).toEqual([
      "SHA256SUMS",
      "bhatti-contract-0.1.0.tgz",
      "bhatti-darwin-arm64.gz",
      "bhatti-darwin-x64.gz",
      "bhatti-linux-arm64.gz",
      "bhatti-linux-x64.gz",
      "bhatti-sdk-0.1.0.tgz",
      "bhatti-server-linux-x64.tar.gz",
      "install",
    ])
    const sums = Object.fromEntries(
      readFileSync(path("SHA256SUMS"), "utf8")
        .trim()
        .split("\n")
        .map((line) => line.split("  ").reverse()),
    )
    for (const [name, sum] of Object.entries(sums)) {
      const bytes = name.endsWith("gz") ? readFileSync(path(name)) : unpacked(name)
      expect([name, new Bun.CryptoHasher("sha256").update(bytes).digest("hex")]).toEqual([name, `${sum}`])
    }
    expect(Object.keys(sums)).toHaveLength(11)
    expect(readFileSync(path("install"), "utf8")).toContain("\nfiles='https://example.com/bhatti'\n")
  }, 120_000)

  test("its programs for macOS are of the right processor and validly signed", () => {
    for (const cpu of ["x64", "arm64"]) {
      const program = unpacked(`bhatti-darwin-${cpu}`)
      expect([cpu, readMachO(program).cpu, checkSignature(program)]).toEqual([cpu, cpu, undefined])
    }
  }, 120_000)

  test("its programs for Linux run: version, help, a command against a daemon, a stream", async () => {
    await using daemon = await Daemon.start()
    await daemon.sandbox("dev")
    for (const [name, start] of [
      ["bhatti-linux-x64", []],
      ["bhatti-linux-arm64", ["qemu-aarch64-static", "-L", sysroot]],
    ] as const) {
      const [emulator] = start
      if (
        emulator !== undefined &&
        (Bun.which(emulator) === null || !readdirSync("/usr").includes("aarch64-linux-gnu"))
      ) {
        console.error(
          `${emulator} and ${sysroot} are needed to run ${name}: apt-get install qemu-user-static libc6-arm64-cross`,
        )
        continue
      }
      const file = join(home, name)
      writeFileSync(file, unpacked(name), { mode: 0o755 })
      const run = async (...args: string[]) => {
        const child = Bun.spawn([...start, file, ...args], {
          env: {
            HOME: "/dev/null",
            PATH: process.env["PATH"] ?? "",
            BHATTI_URL: daemon.url,
            BHATTI_TOKEN: daemon.key,
          },
          stdin: "ignore",
          stdout: "pipe",
          stderr: "pipe",
        })
        const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
        return { stdout, stderr, exitCode: await child.exited }
      }
      expect((await run("version")).stdout).toMatch(/^bhatti v\S+\napi: /)
      expect((await run("--help")).stdout).toContain("Usage: bhatti COMMAND")
      expect(await run("list", "-q")).toEqual({ stdout: "dev\n", stderr: "", exitCode: 0 })
      expect(await run("exec", "dev", "--", "echo", "hi")).toEqual({
        stdout: "hi\n",
        stderr: "",
        exitCode: 0,
      })
      const serve = await run("serve")
      expect([serve.exitCode, serve.stderr]).toEqual([
        1,
        expect.stringContaining("is the command line only, without the daemon"),
      ])
    }
  }, 120_000)

  test("in a bare Debian the script installs the client with wget alone, and says what it needs without", async () => {
    await using own = await openHttpApp({
      downloads: new HostDownloads({ directory: join(home, "release"), program: undefined }),
    })
    const tree = join(home, "debian")
    const made = Bun.spawnSync(["mmdebstrap", "--variant=minbase", "bookworm", tree])
    if (made.exitCode !== 0) throw new Error(made.stderr.toString())
    const script = await (await fetch(`${own.url}/install`)).text()
    writeFileSync(join(tree, "install"), script)
    // Not synchronously: the daemon is in this process.
    const run = async (command: string, options: { hasProc: boolean } = { hasProc: true }) => {
      const env = { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: "/root" }
      const mount = options.hasProc ? 'mount -t proc proc "$1/proc" && ' : ""
      const inside = `${mount}exec /usr/sbin/chroot "$1" sh -c "$2"`
      const shell = ["setsid", "-w", "unshare", "--mount", "sh", "-c", inside, "sh", tree, command]
      const child = Bun.spawn(shell, { env, stdout: "pipe", stderr: "pipe" })
      const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
      return { stdout, stderr, exitCode: await child.exited }
    }
    expect(await run("command -v curl wget")).toMatchObject({ stdout: "" })
    expect(await run("sh </install")).toMatchObject({
      stdout: "",
      stderr: "bhatti: this needs curl or wget, and neither is here\n",
      exitCode: 1,
    })
    const busybox = Bun.which("busybox")
    if (busybox === null) throw new Error("busybox is not installed")
    await Bun.write(join(tree, "bin/busybox"), Bun.file(busybox), { mode: 0o755 })
    writeFileSync(join(tree, "bin/wget"), '#!/bin/sh\nexec busybox wget "$@"\n', { mode: 0o755 })
    expect(await run(`wget -qO- ${own.url}/install | sh`, { hasProc: false })).toEqual({
      stdout: "",
      stderr: "bhatti: /proc is needed, and is not mounted here\n  mount -t proc proc /proc\n",
      exitCode: 1,
    })
    const installed = await run(`wget -qO- ${own.url}/install | sh`)
    expect([installed.stderr, installed.exitCode]).toEqual(["", 0])
    expect(installed.stdout).toContain("is installed: /usr/local/bin/bhatti\n")
    expect((await run("bhatti version")).stdout).toMatch(/^bhatti v/)
    expect((await run(`wget -qO- ${own.url}/install | sh`)).stdout).toContain(
      "/usr/local/bin/bhatti is up to date\n",
    )
  }, 300_000)
})
