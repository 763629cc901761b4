/**
 * The file commands and `cp` as processes: what they ask for, and what they make of what they get, hostile archives
 * included.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { FileEntry } from "@bhatti/contract/file"
import { type Header, pack } from "tar-stream"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, type Ran, until } from "./program.ts"
import { Screen } from "./screen.ts"

let daemon: Daemon
/** Directory of the test on this side. */
let here = ""
/** Files that the sandbox has from the start, by path. */
let guest: Daemon["host"]["files"]

beforeEach(async () => {
  here = mkdtempSync(join(tmpdir(), "bhatti-cp-"))
  daemon = await Daemon.start()
  guest = daemon.host.files
})
afterEach(async () => {
  rmSync(here, { recursive: true })
  await daemon[Symbol.asyncDispose]()
})

/** The sandbox, with the files of `guest`. */
const dev = () => daemon.sandbox("dev")

/** Files that were written, as they were sent. */
function written() {
  return daemon.sent
    .filter(({ method, path }) => `${method} ${path}` === "PUT /sandboxes/dev/files")
    .map(({ query, text, headers }) => ({
      path: query["path"] ?? "",
      mode: query["mode"] ?? null,
      length: headers.get("content-length"),
      text,
    }))
}

const unpacked = () => daemon.host.unpacked

/** A tar stream as a sandbox could make it; nothing checks it. */
function archiveOf(...entries: [Partial<Header> & { name: string }, content?: string][]) {
  return () => {
    const packing = pack()
    for (const [header, content] of entries) packing.entry(header, content ?? "")
    packing.finalize()
    return packing as AsyncIterable<unknown> as AsyncIterable<Uint8Array>
  }
}

/** The sandbox's bytes begin to come, and no more of them. */
async function* begun(bytes: number): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(bytes)
  await new Promise(() => undefined)
}

function local(path: string): string {
  return join(here, path)
}

function cp(...args: string[]) {
  return bhatti(["cp", ...args], { daemon })
}

test("file read writes the bytes to standard output", async () => {
  guest.set("/workspace/a.txt", { bytes: "hello\0world" })
  await dev()
  expect(await bhatti(["file", "read", "dev", "a.txt"], { daemon })).toEqual({
    stdout: "hello\0world",
    stderr: "",
    exitCode: 0,
  })
  const missing = await bhatti(["file", "read", "dev", "nope"], { daemon })
  expect(missing).toMatchObject({ stdout: "", stderr: 'bhatti: no file "nope"\n', exitCode: 1 })
})

test("file read --range writes only these bytes, and refuses what is no range before it asks", async () => {
  guest.set("/workspace/a.txt", { bytes: "0123456789" })
  await dev()
  const read = (range: string) => bhatti(["file", "read", "dev", "a.txt", `--range=${range}`], { daemon })
  expect(await Promise.all(["2-4", "8-", "-3"].map(async (range) => (await read(range)).stdout))).toEqual([
    "234",
    "89",
    "789",
  ])
  expect(await read("10-")).toMatchObject({
    stdout: "",
    stderr: expect.stringContaining("which has 10 bytes"),
    exitCode: 2,
  })
  for (const wrong of ["a", "-", "1-2,4-5", ""])
    expect(await read(wrong)).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("--range is") })
})

test("file read --json has the bytes as lines, text as it is and anything else in base64", async () => {
  guest.set("/workspace/text", { bytes: "grüße\n" })
  await dev()
  const lines = async (...args: string[]) =>
    (await bhatti(["file", "read", "dev", ...args, "--json"], { daemon })).stdout
      .split("\n")
      .flatMap((line) => (line === "" ? [] : [JSON.parse(line)]))
  expect(await lines("text")).toEqual([{ offset: 0, encoding: "utf8", data: "grüße\n" }])
  expect(await lines("text", "--range", "3-3")).toEqual([{ offset: 3, encoding: "base64", data: "vA==" }])
})

test("file attr sets, removes and prints attributes, and file stat shows them", async () => {
  guest.set("/workspace/a.txt", { bytes: "x" })
  await dev()
  const attr = (...more: string[]) => bhatti(["file", "attr", "dev", "a.txt", ...more], { daemon })
  expect(await attr()).toMatchObject({ stdout: "", stderr: "the file has no attributes\n", exitCode: 0 })
  expect(await attr("--set", "user.b=2=3", "--set", "user.a=x\ny")).toMatchObject({
    stdout: "user.a  x\\ny\nuser.b  2=3\n",
  })
  expect(JSON.parse((await attr("--remove", "user.a", "--json")).stdout)).toEqual({ "user.b": "2=3" })
  expect((await bhatti(["file", "stat", "dev", "a.txt"], { daemon })).stdout).toMatch(/^user\.b +2=3$/m)
  for (const wrong of [
    ["--set", "b=2"],
    ["--set", "user.b"],
    ["--remove", "user.a=b"],
  ])
    expect(await attr(...wrong)).toMatchObject({ exitCode: 2 })
})

test("file watch prints a line for each change until the sandbox is gone; --json one object", async () => {
  await dev()
  const watchWith = (...options: string[]) =>
    Bun.spawn([...program, "file", "watch", "dev", "-r", ...options], {
      env: environment(daemon),
      stdout: "pipe",
      stderr: "pipe",
    })
  const children = [watchWith(), watchWith("--json")]
  const { host } = daemon
  await until("both watch", () => host.watches().length === 2)
  for (const watch of host.watches()) {
    watch.tell({ type: "create", path: "a\nb", isDirectory: true })
    watch.tell({ type: "rename", path: "a", to: "c" })
    watch.tell({ type: "lost", path: ".", reason: "too many" })
    watch.end("it is gone")
  }
  const ran = await Promise.all(
    children.map(async ({ stdout, stderr, exited }) => ({
      stdout: await new Response(stdout).text(),
      stderr: await new Response(stderr).text(),
      exitCode: await exited,
    })),
  )
  const stderr = "watching dev:/workspace\nthe directory or the sandbox is gone\n"
  expect(ran[0]).toEqual({
    stdout: "create  a\\nb/\nrename  a -> c\nlost    .: too many\n",
    stderr,
    exitCode: 0,
  })
  expect(
    ran[1]?.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).type),
  ).toEqual(["create", "rename", "lost"])
})

test("file write takes standard input or a local file, with its length and mode", async () => {
  await dev()
  await bhatti(["file", "write", "dev", "in.txt"], { daemon, stdin: "typed" })
  writeFileSync(local("run.sh"), "#!/bin/sh", { mode: 0o755 })
  await bhatti(["file", "write", "dev", "/bin/run", local("run.sh")], { daemon })
  await bhatti(["file", "write", "dev", "p", local("run.sh"), "--mode", "0600", "--json"], { daemon })
  expect(written()).toMatchObject([
    { path: "in.txt", mode: null, length: null, text: "typed" },
    { path: "/bin/run", mode: "0755", length: "9", text: "#!/bin/sh" },
    { path: "p", mode: "0600", length: "9" },
  ])
})

test("more than a file may have is refused before it is sent, and cp is named", async () => {
  await dev()
  const path = local("large")
  writeFileSync(path, "")
  Bun.spawnSync(["truncate", "-s", "105M", path])
  const ran = await bhatti(["file", "write", "dev", "x", path], { daemon })
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toBe(`bhatti: a file has at most 100 MB here\n  try: bhatti cp ${path} dev:x\n`)
  expect(daemon.requests.filter((one) => one.startsWith("PUT"))).toEqual([])
})

test("file ls shows names on one line each, whatever they hold; --json has them raw", async () => {
  const names = ["a\nb", "ü", "-x", "tab\t\u001b[2J", "back\\slash", "\u202etxt"]
  for (const name of names) guest.set(`/workspace/${name}`, { bytes: "" })
  guest.set("/workspace/dir", { type: "directory" })
  guest.set("/workspace/link", { type: "symlink", target: "to\nwhere" })
  for (const name of names) guest.set(`/d/${name}`, { bytes: "" })
  await dev()
  const { stdout } = await bhatti(["file", "ls", "dev"], { daemon })
  const shown = [
    "-x",
    "a\\nb",
    "back\\\\slash",
    "dir/",
    "link -> to\\nwhere",
    "tab\\t\\x1b[2J",
    "ü",
    "\\u{202e}txt",
  ]
  expect(
    stdout
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((line) => line.split("00:00:00Z  ")[1]),
  ).toEqual(shown)
  const json = await bhatti(["file", "ls", "dev", "/d", "--json"], { daemon })
  expect(JSON.parse(json.stdout).map(({ name }: FileEntry) => name)).toEqual(names.toSorted())
})

test("file ls says when there is more than it shows", async () => {
  for (const name of ["a", "b"]) guest.set(`/huge/${name}`, { bytes: "" })
  daemon.host.listedMax = 1
  await dev()
  for (const flags of [[], ["--json"]]) {
    const { stderr, exitCode } = await bhatti(["file", "ls", "dev", "/huge", ...flags], { daemon })
    expect([stderr, exitCode]).toEqual(["only the first 1 entries are shown; there are more\n", 0])
  }
})

test("file rm of a directory that is not empty names the option", async () => {
  guest.set("/workspace/a b/c", { bytes: "" })
  await dev()
  const ran = await bhatti(["file", "rm", "dev", "a b"], { daemon })
  expect(ran.stderr).toBe(
    'bhatti: "a b": directory not empty\n  to remove it with its contents: bhatti file rm -r\n',
  )
  expect(ran.exitCode).toBe(1)
  const recursive = await bhatti(["file", "rm", "-r", "dev", "a b"], { daemon })
  expect(recursive).toMatchObject({ stderr: "", exitCode: 0 })
})

test("file rm, mkdir and mv ask for what was said, also for names with dashes", async () => {
  guest.set("/workspace/a/b", { bytes: "" })
  for (const path of ["-b", "-c"]) guest.set(`/workspace/${path}`, { bytes: "" })
  await dev()
  await bhatti(["file", "rm", "-r", "dev", "a", "--", "-b"], { daemon })
  await bhatti(["file", "mkdir", "dev", "x/y", "--mode", "0700"], { daemon })
  await bhatti(["file", "mv", "dev", "--", "-c", "c d"], { daemon })
  expect(daemon.queries("DELETE /sandboxes/dev/files")).toEqual([
    { path: "a", recursive: "true" },
    { path: "-b", recursive: "true" },
  ])
  expect(daemon.bodies("POST /sandboxes/dev/files/mkdir")).toEqual([{ path: "x/y", mode: "0700" }])
  expect(daemon.bodies("POST /sandboxes/dev/files/mv")).toEqual([{ from: "-c", to: "c d" }])
  const listed = await bhatti(["file", "ls", "dev", "--json"], { daemon })
  expect(JSON.parse(listed.stdout).map(({ name }: FileEntry) => name)).toEqual(["c d", "x"])
})

test("wrong usage of cp and the file commands", async () => {
  for (const [args, told] of [
    [["cp", "a"], "TARGET is missing"],
    [["cp", "a", "b"], "one side is in a sandbox, written SANDBOX:PATH"],
    [["cp", "dev:a", "dev:b"], "copying from sandbox to sandbox takes two steps"],
    [["cp", "dev:a", "b", "c"], "one side is in a sandbox"],
    [["file", "write", "dev", "x", "--mode", "9"], "--mode takes three or four octal digits"],
  ] as const) {
    const ran = await bhatti(args, { daemon })
    expect(ran.stderr).toContain(told)
    expect(ran.exitCode).toBe(2)
  }
})

test("cp up: into a directory or under the target's name, as cp does", async () => {
  guest.set("/workspace/file", { bytes: "" })
  await dev()
  writeFileSync(local("a.txt"), "a")
  writeFileSync(local("b.txt"), "b", { mode: 0o600 })
  expect((await cp(local("a.txt"), "dev:")).stdout).toBe("1 item copied, 1 B\n")
  await cp(local("a.txt"), "dev:/workspace/other.txt")
  await cp(local("a.txt"), "dev:/new/")
  await cp(local("a.txt"), local("b.txt"), "dev:sub")
  expect(written().map(({ path, mode }) => `${path} ${mode}`)).toEqual([
    "a.txt 0644",
    "/workspace/other.txt 0644",
    "/new/a.txt 0644",
    "sub/a.txt 0644",
    "sub/b.txt 0600",
  ])
  const onFile = await cp(local("a.txt"), local("b.txt"), "dev:file")
  expect(onFile.stderr).toBe("bhatti: dev:file is not a directory\n")
})

test("cp up: a directory with links, modes and strange names; pipes stay behind", async () => {
  await dev()
  mkdirSync(local("src/sub"), { recursive: true })
  writeFileSync(local("src/x\ny"), "1", { mode: 0o755 })
  writeFileSync(local(`src/sub/${"long".repeat(50)}ü`), "22")
  symlinkSync("../x", local("src/sub/link"))
  chmodSync(local("src/sub"), 0o2750)
  Bun.spawnSync(["mkfifo", local("src/pipe")])
  const ran = await cp(local("src"), "dev:/workspace")
  expect(ran.stderr).toBe(`not copied: ${local("src/pipe")}: it is not a file, directory or link\n`)
  expect(ran).toMatchObject({ stdout: "5 items copied, 3 B; 1 left out\n", exitCode: 1 })
  const listed = unpacked()?.headers.map(({ name, type, mode, linkname }) => [name, type, mode, linkname])
  expect(unpacked()?.path).toBe("/workspace")
  expect(listed).toEqual([
    ["src", "directory", 0o755, null],
    ["src/sub", "directory", 0o750, null],
    ["src/sub/link", "symlink", 0o777, "../x"],
    [`src/sub/${"long".repeat(50)}ü`, "file", 0o644, null],
    ["src/x\ny", "file", 0o755, null],
  ] as never)
  await cp(local("src"), "dev:/workspace/renamed")
  expect(unpacked()?.headers[0]?.name).toBe("renamed")
  await cp(`${local("src")}/.`, "dev:/workspace/into")
  expect([unpacked()?.path, unpacked()?.headers[0]?.name]).toEqual(["/workspace/into/", "sub"])
})

test("cp -r is cp", async () => {
  await dev()
  mkdirSync(local("src"))
  for (const flag of ["-r", "-R", "--recursive"]) {
    const ran = await cp(flag, local("src"), "dev:")
    expect(ran).toEqual({ stdout: "1 item copied, 0 B\n", stderr: "", exitCode: 0 })
  }
})

test("cp up: a link that is named is followed", async () => {
  await dev()
  mkdirSync(local("real"))
  writeFileSync(local("real/f"), "1")
  symlinkSync("real", local("link"))
  await cp(local("link"), "dev:")
  expect(unpacked()?.headers.map(({ name, type }) => [name, type])).toEqual([
    ["link", "directory"],
    ["link/f", "file"],
  ])
})

test("cp up: standard input needs a name, and a file that is gone is told", async () => {
  await dev()
  await bhatti(["cp", "-", "dev:x"], { daemon, stdin: "in" })
  expect(written()).toMatchObject([{ path: "x", text: "in" }])
  const noName = await bhatti(["cp", "-", "dev:"], { daemon, stdin: "in" })
  expect(noName.stderr).toContain("standard input has no name")
  expect((await cp(local("nope"), "dev:")).stderr).toBe(`bhatti: there is no ${local("nope")} here\n`)
})

test("cp down: a file, with its permissions but not set-user-id", async () => {
  guest.set("/workspace/a.sh", { bytes: "#!", mode: "4755" })
  await dev()
  await cp("dev:a.sh", here)
  expect(statSync(local("a.sh")).mode & 0o7777).toBe(0o755)
  await cp("dev:a.sh", local("b"))
  expect(readFileSync(local("b"), "utf8")).toBe("#!")
  expect((await cp("dev:a.sh", "-")).stdout).toBe("#!")
  expect((await cp("dev:nope", here)).stderr).toBe("bhatti: there is no dev:nope\n")
  expect((await cp("dev:a.sh", local("no/dir"))).stderr).toContain("there is no such file or directory")
  expect(readdirSync(here).sort()).toEqual(["a.sh", "b"])
})

test("cp down: a link is followed where it was named", async () => {
  guest.set("/workspace/link", { type: "symlink", target: "../data/real" })
  guest.set("/data/real", { bytes: "real" })
  guest.set("/workspace/loop", { type: "symlink", target: "loop" })
  await dev()
  await cp("dev:link", here)
  expect(readFileSync(local("link"), "utf8")).toBe("real")
  expect((await cp("dev:loop", here)).stderr).toContain("leads through too many links")
})

const directory = { name: "src/", type: "directory", mode: 0o755 } as const

test("cp down: a directory, its links inside and its hard links", async () => {
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/a", mode: 0o644 }, "aaa"],
    [{ name: "src/sub/", type: "directory", mode: 0o555 }],
    [{ name: "src/sub/x\ny", mode: 0o4755 }, "b"],
    [{ name: "src/sub/up", type: "symlink", linkname: "../a" }],
    [{ name: "src/twin", type: "link", linkname: "src/a" }],
  )
  const ran = await cp("dev:src", local("out"))
  expect(ran).toMatchObject({ stderr: "", exitCode: 0, stdout: "6 items copied, 4 B\n" })
  expect(readFileSync(local("out/sub/up"), "utf8")).toBe("aaa")
  expect(readFileSync(local("out/twin"), "utf8")).toBe("aaa")
  expect(statSync(local("out/sub/x\ny")).mode & 0o7777).toBe(0o755)
  await cp("dev:src", here)
  expect(readFileSync(local("src/a"), "utf8")).toBe("aaa")
  mkdirSync(local("flat"))
  await cp("dev:src/.", local("flat"))
  expect(readFileSync(local("flat/a"), "utf8")).toBe("aaa")
})

test("cp down: nothing is written outside, whatever the archive says", async () => {
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  for (const name of ["src/../../escape", "../escape", "/escape", "src//escape", "src/./escape"]) {
    daemon.host.archive = archiveOf([directory], [{ name: "src/first" }, "1"], [{ name }, "evil"])
    const ran = await cp("dev:src", local("out/"))
    expect(ran.exitCode).toBe(1)
    mkdirSync(local("out"), { recursive: true })
    const into = await cp("dev:src", local("out"))
    expect(into.stderr).toContain("a name that is not below its directory")
    expect(existsSync(local("escape")) || existsSync("/escape")).toBe(false)
  }
})

test("cp down: links that lead out, or may, are left behind, and nothing is written through one", async () => {
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  const targets = ["/etc", "../..", "../../x", "sub/../../..", "up/../..", ""]
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/sub/", type: "directory", mode: 0o755 }],
    [{ name: "src/sub/up", type: "symlink", linkname: ".." }],
    ...targets.map((linkname, index): [Partial<Header> & { name: string }] => [
      { name: `src/sub/l${index}`, type: "symlink", linkname },
    ]),
    [{ name: "src/sub/up/through" }, "evil"],
  )
  const ran = await cp("dev:src", local("out"))
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("exists and is not a directory")
  expect(readdirSync(local("out/sub"))).toEqual(["up"])
  expect(readdirSync(local("out"))).toEqual(["sub"])
})

test("cp down: a link that was here before is not written through either", async () => {
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  mkdirSync(local("elsewhere"))
  mkdirSync(local("out/src"), { recursive: true })
  symlinkSync(local("elsewhere"), local("out/src/d"))
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/d/", type: "directory" }],
    [{ name: "src/d/f" }, "x"],
  )
  expect((await cp("dev:src", local("out"))).stderr).toContain("exists and is not a directory")
  symlinkSync(local("elsewhere/target"), local("out/src/f"))
  daemon.host.archive = archiveOf([directory], [{ name: "src/f" }, "mine"])
  expect((await cp("dev:src", local("out"))).exitCode).toBe(0)
  expect(lstatSync(local("out/src/f")).isFile()).toBe(true)
  expect(readdirSync(local("elsewhere"))).toEqual([])
})

test("a file that becomes shorter while it is copied is told in one line, also in a directory", async () => {
  await dev()
  mkdirSync(local("src"))
  writeFileSync(local("src/f"), Buffer.alloc(50_000_000, 1))
  const held = daemon.host.hold("unpack")
  const copy = cp(local("src"), "dev:")
  await held.reached
  truncateSync(local("src/f"), 0)
  held.release()
  const ran = await copy
  expect(ran.stderr).toBe(`bhatti: ${local("src/f")} has become shorter while it was copied\n`)
  expect(ran.exitCode).toBe(1)
})

test("a name that is no UTF-8 text is told and left behind, not copied under another", async () => {
  await dev()
  const bytes = (name: string) => Buffer.from(local(name), "latin1")
  mkdirSync(local("src"))
  writeFileSync(local("src/ok"), "1")
  writeFileSync(bytes("src/n\xc3("), "1")
  writeFileSync(bytes("src/n\xc4("), "2")
  symlinkSync(Buffer.from("n\xc3(", "latin1"), local("src/link"))
  const up = await cp(local("src"), "dev:")
  expect(unpacked()?.headers.map(({ name }) => name)).toEqual(["src", "src/ok"])
  expect(up.stderr.replaceAll(`${local("src")}/`, "")).toBe(
    [
      "not copied: link: its target is not UTF-8 text",
      "not copied: n\uFFFD(: its name is not UTF-8 text",
      "not copied: n\uFFFD(: its name is not UTF-8 text",
      "",
    ].join("\n"),
  )

  const misread = "src/n\uFFFD("
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: misread }, "1"],
    [{ name: misread }, "2"],
    [{ name: "src/hard", type: "link", linkname: misread }],
    [{ name: "src/link", type: "symlink", linkname: "n\uFFFD(" }],
    [{ name: "src/ok" }, "1"],
  )
  const down = await cp("dev:src", local("out"))
  expect(readdirSync(local("out"))).toEqual(["ok"])
  expect(down.stderr).toBe(
    [
      "not copied: n\uFFFD(: its name is not UTF-8 text",
      "not copied: n\uFFFD(: its name is not UTF-8 text",
      "not copied: hard: it is a hard link to something that was not copied",
      "not copied: link: its target is not UTF-8 text",
      "",
    ].join("\n"),
  )
  expect([up, down].map(({ stdout, exitCode }) => [stdout, exitCode])).toEqual([
    ["2 items copied, 1 B; 3 left out\n", 1],
    ["2 items copied, 1 B; 4 left out\n", 1],
  ])
})

test("cp down: a directory as a tar stream is the sandbox's own, and what it could not pack is said", async () => {
  guest.set("/workspace/src", { type: "directory" })
  const names = [{ name: "src/a/sock\u001b", reason: "it is not a file, directory or link" }]
  const content = "x".repeat(300_000)
  const comment = JSON.stringify({ left_out: 2, names })
  await dev()
  const archive = archiveOf([directory], [{ name: "src/ok" }, content], [{ ...directory, pax: { comment } }])
  daemon.host.archive = archive
  const ran = await cp("dev:src", "-")
  const sent = Buffer.concat(await Array.fromAsync(archive())).toString()
  expect(ran.stdout === sent).toBe(true)
  expect(ran.stderr).toBe(
    "not copied: a/sock\\x1b: it is not a file, directory or link\nand 1 other not copied\n",
  )
  expect(ran.exitCode).toBe(1)
  daemon.host.archive = archiveOf([directory], [{ name: "src/ok" }, content])
  expect(await cp("dev:src", "-")).toMatchObject({ stderr: "", exitCode: 0 })
})

test("cp down: devices and pipes are left behind, hard links to outside are refused", async () => {
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/dev", type: "character-device", devmajor: 1, devminor: 3 }],
    [{ name: "src/pipe", type: "fifo" }],
    [{ name: "src/ok" }, "1"],
  )
  const ran = await cp("dev:src", local("out"))
  expect(ran.stderr).toBe(
    "not copied: dev: it is not a file, directory or link\nnot copied: pipe: it is not a file, directory or link\n",
  )
  expect(readdirSync(local("out"))).toEqual(["ok"])
  expect(ran).toMatchObject({ stdout: "2 items copied, 1 B; 2 left out\n", exitCode: 1 })
  const json = await cp("--json", "dev:src", local("other"))
  expect(JSON.parse(json.stdout)).toEqual({ status: "incomplete", entries: 2, bytes: 1, skipped: 2 })
  expect(json.exitCode).toBe(1)
  const names = [
    { name: "src/a/sock\u001b", reason: "it is not a file, directory or link" },
    { name: "src/proc/", reason: "gone" },
  ]
  const comment = JSON.stringify({ left_out: 7, names })
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/ok" }, "1"],
    [{ ...directory, pax: { comment } }],
  )
  const told = await cp("dev:src", local("told"))
  expect(told.stderr).toBe(
    "not copied: a/sock\\x1b: it is not a file, directory or link\nnot copied: proc: gone\nand 5 others not copied\n",
  )
  expect(told).toMatchObject({ stdout: "2 items copied, 1 B; 7 left out\n", exitCode: 1 })
  daemon.host.archive = archiveOf(
    [directory],
    [{ name: "src/dev", type: "character-device", devmajor: 1, devminor: 3 }],
    [{ name: "src/pipe", type: "fifo" }],
    [{ name: "src/ok" }, "1"],
  )
  const two = await cp("dev:src", "dev:src", local("other"))
  expect(two).toMatchObject({ stdout: "4 items copied, 2 B; 4 left out\n", exitCode: 1 })
  for (const linkname of ["/etc/passwd", "src/../../../etc/passwd"]) {
    daemon.host.archive = archiveOf([directory], [{ name: "src/p", type: "link", linkname }])
    expect((await cp("dev:src", local("out"))).exitCode).toBe(1)
    expect(existsSync(local("out/p"))).toBe(false)
  }
})

test("cp down: what breaks off leaves no half file, and the old one", async () => {
  writeFileSync(local("a"), "old")
  guest.set("/workspace/a", { bytes: "" })
  guest.set("/workspace/src", { type: "directory" })
  await dev()
  daemon.host.download = async function* () {
    yield new Uint8Array(100_000)
    throw new AppError("unavailable", "the guest does not read")
  }
  const ran = await cp("dev:a", local("a"))
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("bhatti: the daemon aborted the transfer")
  expect(readdirSync(here)).toEqual(["a"])
  expect(readFileSync(local("a"), "utf8")).toBe("old")

  const whole = Buffer.concat(
    await Array.fromAsync(archiveOf([directory], [{ name: "src/f" }, "x".repeat(100_000)])()),
  )
  expect(whole.length).toBeGreaterThan(100_000)
  for (const length of [0, 50_000]) {
    daemon.host.archive = async function* () {
      yield whole.subarray(0, length)
    }
    const cut = await cp("dev:src", local("out"))
    expect(cut.stderr).toStartWith("bhatti: the sandbox sent a broken archive\n")
    expect(cut.exitCode).toBe(1)
  }
  expect(readdirSync(local("out"))).toEqual([])
})

/** Ends of a sandbox during a transfer. */
const fates = {
  stopped: () => daemon.call("POST", "/sandboxes/dev/stop"),
  destroyed: () => daemon.call("DELETE", "/sandboxes/dev"),
  lost: async () => daemon.core.guests.values().next().value?.close(),
}

/** Runs it; when its bytes are on their way that happens to the sandbox. */
async function during(fate: keyof typeof fates, args: readonly string[]): Promise<Ran> {
  if (!(await daemon.names()).includes("dev")) await dev()
  const held = daemon.host.hold("write")
  daemon.host.download = () => begun(100)
  const running = bhatti(args, { daemon })
  const { ongoing } = daemon.host
  await until("its bytes", () => ongoing.uploads + ongoing.downloads === 1)
  if (ongoing.uploads === 1) await held.reached
  const done = fates[fate]()
  const ran = await running
  held.release()
  await done
  return ran
}

test("a sandbox that is stopped or destroyed during a copy: that is what is said", async () => {
  writeFileSync(local("up"), "x")
  guest.set("/workspace/a", { bytes: "" })
  for (const [fate, told] of [
    ["stopped", 'the sandbox "dev" was stopped during the transfer'],
    ["destroyed", 'the sandbox "dev" was destroyed during the transfer'],
  ] as const)
    for (const paths of [
      [local("up"), "dev:up"],
      ["dev:a", local("a")],
    ]) {
      const ran = await during(fate, ["cp", ...paths])
      expect(ran.stderr).toBe(`bhatti: ${told}\n`)
      expect(ran.exitCode).toBe(1)
    }
  const lost = await during("lost", ["cp", local("up"), "dev:up"])
  expect(lost.stderr).toBe(
    'bhatti: the sandbox "dev" lost its connection to the daemon during the transfer\n',
  )
  expect(lost.exitCode).toBe(1)
  expect(readdirSync(here)).toEqual(["up"])
})

test("a sandbox that is stopped or destroyed during file read or write: that is what is said", async () => {
  writeFileSync(local("up"), "x")
  guest.set("/workspace/a", { bytes: "" })
  const read = ["file", "read", "dev", "a"]
  const write = ["file", "write", "dev", "a", local("up")]
  for (const fate of ["stopped", "destroyed"] as const) {
    const told = `bhatti: the sandbox "dev" was ${fate} during the transfer\n`
    expect(await during(fate, read)).toMatchObject({ stderr: told, exitCode: 1 })
    expect(await during(fate, write)).toEqual({ stdout: "", stderr: told, exitCode: 1 })
  }
  // It was stopped before, and cannot be started.
  await dev()
  await daemon.call("POST", "/sandboxes/dev/stop")
  daemon.host.failAt = "restore"
  for (const args of [read, write]) {
    const ran = await bhatti(args, { daemon })
    expect(ran).toMatchObject({ stdout: "", exitCode: 1 })
    expect(ran.stderr).toStartWith('bhatti: sandbox "dev" could not be started\n')
  }
})

test("an interrupted transfer ends with the signal's code and leaves nothing half done", async () => {
  guest.set("/workspace/a", { bytes: "" })
  await dev()
  daemon.host.download = () => begun(10_000)
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    const child = Bun.spawn([...program, "cp", "dev:a", local("a")], {
      env: environment(daemon),
      stdout: "ignore",
      stderr: "pipe",
    })
    await until("the first bytes", () => readdirSync(here).length === 1)
    child.kill(signal)
    expect(await child.exited).toBe(code)
    expect(await child.stderr.text()).toBe("interrupted; no file was replaced by an incomplete one\n")
    expect(readdirSync(here)).toEqual([])
  }
})

test("progress stays on one line of the terminal, however narrow", async () => {
  const name = "a-name-that-is-longer-than-the-terminal-is-wide"
  guest.set(`/workspace/${name}`, { bytes: new Uint8Array(20_000) })
  await dev()
  daemon.host.download = () => begun(10_000)
  await using screen = new Screen(daemon)
  screen.resize({ cols: 30, rows: 10 })
  await screen.bhatti(`cp dev:${name} ${local("a")}`)
  await screen.shows("50 %")
  const drawn = screen.text.split(/[\r\n]/).filter((line) => line.includes("50 %"))
  screen.type("\x03")
  await screen.shows("code=130")
  expect(drawn.length).toBeGreaterThan(0)
  for (const line of drawn) expect(Bun.stringWidth(line)).toBeLessThan(30)
})

test("an interrupted upload is broken off, so that the daemon drops it", async () => {
  await dev()
  const child = Bun.spawn([...program, "file", "write", "dev", "x"], {
    env: environment(daemon),
    stdin: "pipe",
    stdout: "ignore",
    stderr: "pipe",
  })
  child.stdin.write(new Uint8Array(200_000))
  await child.stdin.flush()
  await until("the upload to begin", () => daemon.host.ongoing.uploads === 1)
  child.kill("SIGINT")
  expect(await child.exited).toBe(130)
  expect(await child.stderr.text()).toBe("interrupted; dev:x is as it was\n")
  await until("the daemon to see it", () => daemon.host.ongoing.uploads === 0)
  expect((await daemon.call("GET", "/sandboxes/dev/files?path=x")).status).toBe(404)
})
