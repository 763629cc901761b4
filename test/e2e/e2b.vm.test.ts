/** The published SDKs of e2b run commands and handle files in real sandboxes, on one plain origin. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import * as newest from "e2b"
import { e2bSdks } from "../support/e2b-sdks.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"

let own: Installation
let options: { apiKey: string; apiUrl: string; sandboxUrl: string; requestTimeoutMs: number }
beforeAll(async () => {
  own = await install({ config: "warm_after: 0\ne2b: on\n" })
  const apiKey = (await own.bhatti(["key", "create", "--e2b"])).stdout.trim()
  options = { apiKey, apiUrl: own.url, sandboxUrl: own.url, requestTimeoutMs: 60_000 * patience }
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

test.each(e2bSdks)(
  "e2b %s runs commands, with input, errors and a time limit",
  async (_version, e2b) => {
    const sandbox = await e2b.Sandbox.create({ ...options, envs: { OWN: "variable" } })
    const { commands } = sandbox
    const quick = { timeoutMs: 60_000 * patience }
    expect(
      await commands.run('echo "$OWN $MORE"; echo oops >&2', { ...quick, envs: { MORE: "two" } }),
    ).toMatchObject({
      ...{ exitCode: 0, stdout: "variable two\n", stderr: "oops\n" },
    })
    const failed = await commands.run("exit 3", quick).catch((error) => error)
    expect(failed).toBeInstanceOf(e2b.CommandExitError)
    expect(failed.exitCode).toBe(3)
    expect(await commands.run("pwd; id -un", { ...quick, cwd: "/tmp", user: "root" })).toMatchObject({
      stdout: "/tmp\nroot\n",
    })
    const nowhere = await commands.run("true", { ...quick, cwd: "/nowhere" }).catch((error) => error)
    expect(nowhere).toBeInstanceOf(e2b.InvalidArgumentError)
    const late = await commands.run("sleep 1000", { timeoutMs: 2000 }).catch((error) => error)
    expect(late).toBeInstanceOf(e2b.TimeoutError)
    await until("the late command is killed", async () => (await commands.list()).length === 0)

    const cat = await commands.run("cat", { background: true, stdin: true, timeoutMs: 0 })
    await commands.sendStdin(cat.pid, "typed\n")
    await until("it answers", () => cat.stdout === "typed\n")
    expect((await commands.list()).map(({ pid }) => pid)).toEqual([cat.pid])
    expect(await commands.kill(cat.pid)).toBe(true)
    expect(await cat.wait().catch((error) => error)).toBeInstanceOf(e2b.CommandExitError)
    expect(await commands.kill(cat.pid)).toBe(false)
    await sandbox.kill()
    expect(await sandbox.isRunning()).toBe(false)
  },
  300_000,
)

test("a terminal, a second client, a flood, a pause, and the end of a sandbox under a command", async () => {
  const { Sandbox } = newest
  const sandbox = await Sandbox.create(options)
  const { commands, pty } = sandbox
  let shown = ""
  const decoder = new TextDecoder()
  const terminal = await pty.create({
    ...{ cols: 80, rows: 24, timeoutMs: 0 },
    onData: (bytes) => {
      shown += decoder.decode(bytes)
    },
  })
  await pty.resize(terminal.pid, { cols: 100, rows: 30 })
  await pty.sendInput(terminal.pid, new TextEncoder().encode("stty size; echo in-$((40 + 2))\n"))
  await until("the terminal answers", () => shown.includes("30 100") && shown.includes("in-42"))
  expect(await pty.kill(terminal.pid)).toBe(true)

  const flood = await commands.run("head -c 3000000 /dev/zero | tr '\\0' x", {
    timeoutMs: 120_000 * patience,
  })
  expect(flood.stdout.length).toBe(3_000_000)

  const ticks = await commands.run("while sleep 0.2; do echo tick; done", { background: true, timeoutMs: 0 })
  let heard = ""
  const second = await commands.connect(ticks.pid, {
    timeoutMs: 0,
    onStdout: (text) => {
      heard += text
    },
  })
  await until("both hear it", () => heard.includes("tick") && ticks.stdout.includes("tick"))
  await second.disconnect()

  expect(await Sandbox.pause(sandbox.sandboxId, options)).toBe(true)
  const again = await Sandbox.connect(sandbox.sandboxId, options)
  expect((await again.commands.list()).map(({ pid }) => pid)).toContain(ticks.pid)
  const last = await again.commands.run("sleep 1000", { background: true, timeoutMs: 0 })
  const ended = last.wait().catch((error) => error)
  expect(await again.kill()).toBe(true)
  expect(await ended).toBeInstanceOf(Error)
  expect(await again.isRunning()).toBe(false)
}, 300_000)

test.each(e2bSdks)(
  "e2b %s writes, lists, watches and removes files that commands see",
  async (_version, e2b) => {
    const sandbox = await e2b.Sandbox.create(options)
    const { files, commands } = sandbox
    const run = async (line: string) => (await commands.run(line, { timeoutMs: 60_000 * patience })).stdout
    await files.write([
      { path: "own/a 1.txt", data: "one" },
      { path: "/tmp/own/ü", data: new Blob(["two"]) },
    ])
    expect(await run("cat 'own/a 1.txt' /tmp/own/ü; stat -c %U%a /tmp/own/ü")).toBe("onetwolohar644\n")
    expect(await files.write("~/home", "h", { user: "root" })).toMatchObject({ path: "/root/home" })
    expect(await run("sudo stat -c %U /root/home; pwd")).toBe("root\n/workspace\n")
    await run("ln -s own link; head -c 5000000 /dev/urandom > big; sha256sum big > sum")
    const big = await files.read("big", { format: "bytes" })
    expect(await files.read("sum")).toStartWith(new Bun.CryptoHasher("sha256").update(big).digest("hex"))
    expect(await files.read("/proc/version")).toContain("Linux")
    expect((await files.list("link", { depth: 2 })).map(({ path }) => path)).toEqual([
      "/workspace/link/a 1.txt",
    ])
    expect(await files.getInfo("link")).toMatchObject({ type: "dir", symlinkTarget: "/workspace/own" })
    expect(await files.makeDir("deep/er")).toBe(true)
    expect(await files.makeDir("deep/er")).toBe(false)
    expect(await files.makeDir("big").catch((error) => error)).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await files.read("nothing").catch((error) => error)).toBeInstanceOf(e2b.NotFoundError)
    expect(await files.list("big").catch((error) => error)).toBeInstanceOf(e2b.InvalidArgumentError)

    const told: string[] = []
    const watch = await files.watchDir("deep", ({ type, name }) => void told.push(`${type} ${name}`), {
      ...{ recursive: true, timeoutMs: 0 },
    })
    await run("echo x > deep/er/file; mv deep/er/file deep/moved; rm deep/moved")
    await until("all is told", () => told.at(-1) === "remove moved")
    expect(told).toContain("create er/file")
    expect(told).toContain("rename er/file")
    await watch.stop()
    expect(await files.rename("big", "other/place")).toMatchObject({ size: 5_000_000 })
    await files.remove("other")
    await files.remove("other")
    expect(await run("ls")).toBe("deep\nlink\nown\nsum\n")
    await sandbox.kill()
    expect(await sandbox.isRunning()).toBe(false)
  },
  300_000,
)

test("metadata is kept with a file, and the next write replaces it", async () => {
  const { files, sandboxId } = await newest.Sandbox.create(options)
  await files.write("a", "x", { gzip: true, metadata: { author: "me" } })
  expect((await files.getInfo("a")).metadata).toEqual({ author: "me" })
  await files.write("a", "y")
  expect((await files.getInfo("a")).metadata ?? {}).toEqual({})
  await newest.Sandbox.kill(sandboxId, options)
}, 300_000)

test("signed addresses work without a key, and a host name leads to the agent and to published ports", async () => {
  const sandbox = await newest.Sandbox.create(options)
  const { sandboxId, files, commands } = sandbox
  await files.write("a", "content")
  const url = new URL(await sandbox.downloadUrl("a", { useSignatureExpiration: 600 }))
  expect(await (await fetch(url)).text()).toBe("content")
  const named = (port: number) => ({ headers: { host: `${port}-${sandboxId}.localhost` } })
  expect(await (await fetch(url, named(49983))).text()).toBe("content")
  expect((await fetch(`${own.url}/files?path=a`, named(49983))).status).toBe(401)

  await commands.run("python3 -m http.server 3000", { background: true, timeoutMs: 0 })
  expect((await fetch(`${own.url}/a`, named(3000))).status).toBe(404)
  expect((await own.bhatti(["publish", `sb_${sandboxId}`, "--port", "3000"])).exitCode).toBe(0)
  await until("the server answers", async () => (await fetch(`${own.url}/a`, named(3000))).status === 200)
  expect(await (await fetch(`${own.url}/a`, named(3000))).text()).toBe("content")
  await sandbox.kill()
}, 300_000)
