/** Commands and terminals of e2b's SDKs on a fake host: the protocol, its errors and its ends. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { CreatedKey } from "@bhatti/contract/key"
import * as newest from "e2b"
import { e2bSdks } from "../support/e2b-sdks.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let apiKey: string
let stopping: AbortController
beforeEach(async () => {
  own = await openHttpApp({ e2b: true })
  stopping = new AbortController()
  void own.core.keys.run(stopping.signal)
  const can = ["read", "exec", "create", "destroy", "power", "edit"]
  apiKey = CreatedKey.parse((await own.call("POST", "/keys", { can, name: "agent" })).body).key
})
afterEach(async () => {
  stopping.abort()
  await own[Symbol.asyncDispose]()
})

const options = () => ({ apiKey: apiKey.replace("bht_", "e2b_"), apiUrl: own.url, sandboxUrl: own.url })

describe.each(e2bSdks)("e2b %s", (_version, e2b) => {
  test("runs commands: output, exit codes, variables, a long output", async () => {
    const { commands } = await e2b.Sandbox.create(options())
    expect(await commands.run("warn")).toMatchObject({ exitCode: 0, stdout: "out\n", stderr: "err\n" })
    const failed = await commands.run("exit 3").catch((error) => error)
    expect(failed).toBeInstanceOf(e2b.CommandExitError)
    expect(failed.exitCode).toBe(3)
    expect(await commands.run("env", { envs: { A: "1" } })).toMatchObject({ stdout: "A=1\n" })
    expect((await commands.run("flood 500000")).stdout.length).toBe(500_000)
  })

  test("lists, feeds and kills what runs in the background", async () => {
    const sandbox = await e2b.Sandbox.create(options())
    const { commands } = sandbox
    const cat = await commands.run("cat", { background: true, stdin: true, timeoutMs: 0 })
    expect((await commands.list()).map(({ pid, cmd, args }) => [pid, cmd, args])).toEqual([
      [cat.pid, "/bin/bash", ["-l", "-c", "cat"]],
    ])
    await commands.sendStdin(cat.pid, "typed\n")
    await until("it answers", () => cat.stdout === "typed\n")
    expect(await commands.kill(cat.pid)).toBe(true)
    expect(await cat.wait().catch((error) => error)).toBeInstanceOf(e2b.CommandExitError)
    expect(await commands.kill(cat.pid)).toBe(false)
    expect(await commands.list()).toEqual([])
    expect(await sandbox.isRunning()).toBe(true)
    await sandbox.kill()
    expect(await sandbox.isRunning()).toBe(false)
  })

  test("a time limit is a timeout error and the end of the command", async () => {
    const { commands } = await e2b.Sandbox.create(options())
    const late = await commands.run("sleep", { timeoutMs: 300 }).catch((error) => error)
    expect(late).toBeInstanceOf(e2b.TimeoutError)
    await until("it is killed", async () => (await commands.list()).length === 0)
  })

  test("a terminal has its size and takes keys", async () => {
    own.host.sessionProgram = "keys"
    const { pty } = await e2b.Sandbox.create(options())
    let shown = ""
    const onData = (bytes: Uint8Array) => {
      shown += Buffer.from(bytes).toString()
    }
    const terminal = await pty.create({ cols: 90, rows: 20, timeoutMs: 0, onData })
    await pty.resize(terminal.pid, { cols: 100, rows: 30 })
    await until("it tells its new size", () => shown.includes("resized 30x100"))
    await pty.sendInput(terminal.pid, new TextEncoder().encode("q"))
    const end = await terminal.wait().catch((error) => error)
    expect(end.exitCode).toBe(5)
  })
})

test("a client that leaves does not end its command, and another hears what follows", async () => {
  const { commands } = await newest.Sandbox.create(options())
  const first = await commands.run("cat", { background: true, stdin: true, timeoutMs: 0 })
  await first.disconnect()
  let heard = ""
  const onStdout = (text: string) => {
    heard += text
  }
  const second = await commands.connect(first.pid, { timeoutMs: 0, onStdout })
  await commands.sendStdin(first.pid, "still here\n")
  await until("the second hears it", () => heard === "still here\n")
  await commands.closeStdin(first.pid)
  expect((await second.wait()).exitCode).toBe(0)
})

test("a revoked key ends its streams within a second, and a key without exec runs nothing", async () => {
  const sandbox = await newest.Sandbox.create(options())
  const running = await sandbox.commands.run("sleep", { background: true, timeoutMs: 0 })
  const ended = running.wait().catch((error) => error)
  const revokedAt = performance.now()
  await own.call("DELETE", "/keys/agent")
  expect(await ended).toBeInstanceOf(Error)
  expect(performance.now() - revokedAt).toBeLessThan(1000)

  const { key } = CreatedKey.parse((await own.call("POST", "/keys", { can: ["read", "create"] })).body)
  apiKey = key
  const { commands } = await newest.Sandbox.create(options())
  expect(String(await commands.run("true").catch((error) => error))).toContain('lacks the permission "exec"')
})

test("another user's sandbox is one that is gone, and no token is none", async () => {
  const { sandboxId } = await newest.Sandbox.create(options())
  const { key } = await own.core.store.users.create({ name: "bob" })
  const ask = (token: string | undefined) =>
    fetch(`${own.url}/process.Process/List`, {
      method: "POST",
      headers: {
        ...{ "e2b-sandbox-id": sandboxId, "e2b-sandbox-port": "49983", "content-type": "application/json" },
        ...(token !== undefined && { "x-access-token": token }),
      },
      body: "{}",
    })
  expect((await ask(apiKey)).status).toBe(200)
  expect((await ask(key)).status).toBe(502)
  expect((await ask(undefined)).status).toBe(401)
  expect((await ask("bht_wrong")).status).toBe(401)
})

test("a message is bounded, whether it comes alone or in a stream", async () => {
  const { sandboxId } = await newest.Sandbox.create(options())
  const ask = (path: string, type: string, body: Uint8Array | string) =>
    fetch(`${own.url}/process.Process/${path}`, {
      method: "POST",
      headers: {
        ...{ "e2b-sandbox-id": sandboxId, "e2b-sandbox-port": "49983", "content-type": type },
        "x-access-token": apiKey,
      },
      body,
    })
  const text = JSON.stringify({ process: { pid: 1 }, input: { stdin: "A".repeat(16 * 1024 * 1024) } })
  expect(await (await ask("SendInput", "application/json", text)).text()).toContain("resource_exhausted")
  const start = Buffer.from(JSON.stringify({ process: { cmd: "A".repeat(16 * 1024 * 1024) } }))
  const head = Buffer.alloc(5)
  head.writeUInt32BE(start.length, 1)
  const answer = await ask("Start", "application/connect+json", Buffer.concat([head, start]))
  expect(await answer.text()).toContain("resource_exhausted")
})
