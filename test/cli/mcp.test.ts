/** `bhatti mcp` as a client of the protocol's own SDK uses it, in both eras, and its entry in clients' files. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Client, type ProgressNotification } from "@modelcontextprotocol/client"
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"
import { Screen } from "./screen.ts"

let daemon: Daemon

beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev")
})
afterAll(() => daemon[Symbol.asyncDispose]())

type Connected = AsyncDisposable & {
  client: Client
  pid: number
  call: (name: string, input: object, options?: object) => Promise<string>
  refusal: (name: string, input: object) => Promise<string>
}

async function connected(mode: "legacy" | "auto", key = daemon.key): Promise<Connected> {
  const [command = "", ...args] = [...program, "mcp"]
  const env = environment({ url: daemon.url, key })
  const transport = new StdioClientTransport({ command, args, env, stderr: "inherit" })
  const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode } })
  await client.connect(transport)
  const ask = async (name: string, input: object, options = {}) => {
    const result = await client.callTool({ name, arguments: { ...input } }, options)
    const text = result.content.map((one) => (one.type === "text" ? one.text : one.type)).join("\n")
    return { text, isError: result.isError ?? false }
  }
  return {
    client,
    pid: transport.pid ?? 0,
    async call(name, input, options) {
      const { text, isError } = await ask(name, input, options)
      if (isError) throw new Error(text)
      return text
    },
    async refusal(name, input) {
      const { text, isError } = await ask(name, input)
      if (!isError) throw new Error(`no error: ${text}`)
      return text
    },
    [Symbol.asyncDispose]: () => client.close(),
  }
}

describe.each(["legacy", "auto"] as const)("a client in %s mode", (mode) => {
  let mcp: Connected
  beforeAll(async () => {
    mcp = await connected(mode)
  })
  afterAll(() => mcp[Symbol.asyncDispose]())

  test("sees few tools, in a listing of at most 2,500 tokens", async () => {
    expect(mcp.client.getServerVersion()?.name).toBe("bhatti")
    expect(mcp.client.getProtocolEra()).toBe(mode === "legacy" ? "legacy" : "modern")
    const listing = await mcp.client.listTools()
    expect(listing.tools.map(({ name }) => name)).toEqual([
      "create",
      "list",
      "exec",
      "process",
      "file",
      "snapshot",
      "publish",
      "destroy",
    ])
    // Four characters are about a token.
    expect(JSON.stringify(listing).length / 4).toBeLessThan(2500)
  })

  test("creates, lists, forks and destroys sandboxes", async () => {
    const name = `made-${mode}`
    expect(await mcp.call("create", { name, memory_mb: 256, ttl_sec: 600 })).toContain(`created ${name} (`)
    expect(await mcp.call("create", { name: `${name}-fork`, from: name })).toContain(`created ${name}-fork (`)
    expect(await mcp.call("list", {})).toContain(`${name}-fork (`)
    expect(JSON.parse(await mcp.call("list", { sandbox: name }))).toMatchObject({ name, memory_mb: 256 })
    await mcp.call("destroy", { sandbox: name })
    await mcp.call("destroy", { sandbox: `${name}-fork` })
    expect(await daemon.names()).not.toContain(name)
  })

  test("runs commands, and sees their output and how they ended", async () => {
    expect(await mcp.call("exec", { sandbox: "dev", command: "both" })).toBe(
      "exit code: 0\nstdout:\nout 1\nout 2\n\nstderr:\nerr 1\n",
    )
    expect(await mcp.call("exec", { sandbox: "dev", command: "exit 7" })).toBe("exit code: 7")
    const env = { NAME: "value" }
    expect(await mcp.call("exec", { sandbox: "dev", command: "env", env })).toContain("NAME=value")
    expect(await mcp.call("exec", { sandbox: "dev", command: "sleep", timeout_sec: 0.1 })).toContain(
      "timeout_sec is over",
    )
    // Output that was seen whole is not kept.
    expect(await mcp.call("process", { sandbox: "dev", action: "list" })).not.toContain("both")
  })

  test("reads the rest of long output by its offset", async () => {
    const text = await mcp.call("exec", { sandbox: "dev", command: "flood 100000" })
    const [, id = "", offset = ""] = text.match(/process=(p[0-9]+) stream=stdout offset=([0-9]+)\]/) ?? []
    expect(text.length).toBeLessThan(20_000)
    expect(text).toContain("84000 of 100000 bytes are left out")
    const page = await mcp.call("process", {
      ...{ sandbox: "dev", action: "read", process: id, offset: Number(offset) },
    })
    expect(page).toStartWith("bytes 4000 to 20000 of 100000; next offset=20000\n")
    const last = await mcp.call("process", { sandbox: "dev", action: "read", process: id, offset: 99_990 })
    expect(last).toStartWith("bytes 99990 to 100000 of 100000; no more now\n")
  })

  test("controls a process that runs in the background", async () => {
    const started = await mcp.call("exec", { sandbox: "dev", command: "cat", background: true, stdin: true })
    const id = started.match(/p[0-9]+/)?.[0]
    const own = { sandbox: "dev", process: id }
    await mcp.call("process", { ...own, action: "write", text: "hello\n", end: true })
    expect(await mcp.call("process", { ...own, action: "wait" })).toContain(
      `${id}: exit code: 0; stdout 6 bytes`,
    )
    expect(await mcp.call("process", { ...own, action: "read" })).toContain("hello\n")
    const other = await mcp.call("exec", { sandbox: "dev", command: "sleep", background: true })
    const sleeping = { sandbox: "dev", process: other.match(/p[0-9]+/)?.[0] }
    expect(await mcp.call("process", { ...sleeping, action: "wait", timeout_sec: 0 })).toContain(": runs;")
    await mcp.call("process", { ...sleeping, action: "signal", signal: "TERM" })
    expect(await mcp.call("process", { ...sleeping, action: "wait" })).toContain("ended by SIGTERM")
  })

  test("writes, reads and lists files", async () => {
    const path = "/workspace/notes.txt"
    expect(await mcp.call("file", { sandbox: "dev", action: "write", path, content: "a\nb\nc\n" })).toBe(
      `wrote 6 bytes to ${path}`,
    )
    expect(await mcp.call("file", { sandbox: "dev", action: "read", path })).toBe("a\nb\nc\n")
    expect(await mcp.call("file", { sandbox: "dev", action: "read", path, line: 2, lines: 1 })).toBe("b\n")
    const lines = "0123456789\n".repeat(10_000)
    await mcp.call("file", { sandbox: "dev", action: "write", path, content: lines })
    const cut = await mcp.call("file", { sandbox: "dev", action: "read", path })
    expect(cut).toEndWith("0123456789\n[the file goes on; to read it: line=2910]")
    expect(await mcp.call("file", { sandbox: "dev", action: "list", path: "/workspace" })).toContain(
      "notes.txt",
    )
  })

  test("keeps a snapshot, resumes it, and publishes a port", async () => {
    const name = `kept-${mode}`
    await mcp.call("snapshot", { action: "create", sandbox: "dev", name })
    expect(await mcp.call("snapshot", { action: "list" })).toContain(`${name}: of dev`)
    const again = `again-${mode}`
    expect(await mcp.call("snapshot", { action: "resume", name, sandbox: again })).toContain(
      `created ${again}`,
    )
    await mcp.call("destroy", { sandbox: again })
    await mcp.call("snapshot", { action: "delete", name })
    expect(await mcp.call("publish", { sandbox: "dev", port: 3000, alias: `my-${mode}` })).toContain(
      `my-${mode}`,
    )
  })

  test("is told code, message and next step of an error", async () => {
    expect(await mcp.refusal("exec", { sandbox: "none", command: "true" })).toMatch(
      /^error: not_found\nmessage: .*none.*\nnext step: the tool list shows/,
    )
    expect(await mcp.refusal("file", { sandbox: "dev", action: "write", path: "/x" })).toContain(
      "needs content",
    )
    expect(await mcp.refusal("process", { sandbox: "dev", action: "read", process: "p999999" })).toContain(
      "next step: the tool process with action list",
    )
  })

  test("is told the progress of a command, and cancels it: the command is killed in the sandbox", async () => {
    const cancelling = new AbortController()
    const told: ProgressNotification["params"]["message"][] = []
    const call = mcp.call(
      "exec",
      { sandbox: "dev", command: "stubborn" },
      {
        signal: cancelling.signal,
        onprogress: ({ message }: { message?: string }) => told.push(message),
      },
    )
    call.catch(() => undefined)
    await until("the command's line", () => told.includes("ready"))
    cancelling.abort()
    expect(call).rejects.toThrow()
    const { signals } = daemon.lastProcess
    await until("its kill", () => signals.includes("KILL"))
  })
})

test("a client that is gone leaves no command of its calls and no server", async () => {
  const mcp = await connected("legacy")
  mcp.call("exec", { sandbox: "dev", command: "stubborn" }).catch(() => undefined)
  const before = daemon.host.processes.length
  await until("the command", () => daemon.host.processes.length > before)
  const { signals } = daemon.lastProcess
  await mcp.client.close()
  await until("its kill", () => signals.includes("KILL"))
  await until("the server's end", () => !isAlive(mcp.pid))
})

test("a person who starts it at a terminal is told so, and Ctrl-C ends it", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("mcp")
  await screen.shows("bhatti mcp install CLIENT")
  screen.type("\x03")
  await screen.restored()
  expect(screen.text).toContain("code=0")
})

test("a key of less than all rights is refused clearly", async () => {
  const { body } = await daemon.call("POST", "/keys", { can: ["read", "exec"], sandboxes: ["dev"] })
  await using mcp = await connected("auto", (body as { key: string }).key)
  expect(await mcp.call("exec", { sandbox: "dev", command: "true" })).toBe("exit code: 0")
  expect(await mcp.refusal("destroy", { sandbox: "dev" })).toMatch(
    /^error: forbidden\n.*\nnext step: this API key may not/,
  )
  expect(await daemon.names()).toContain("dev")
})

test("a wrong key is an error of each call, with the command that helps", async () => {
  await using mcp = await connected("legacy", `bht_${"0".repeat(64)}`)
  expect(await mcp.refusal("list", {})).toMatch(/^error: unauthenticated\n.*\nnext step: .*bhatti setup/)
})

describe("mcp install", () => {
  let home: string
  const install = (args: string[], env: Record<string, string> = {}) =>
    bhatti(["mcp", "install", ...args], { env: { HOME: home, ...env } })
  const textOf = (file: string) => readFileSync(join(home, file), "utf8")
  const place = (file: string, text: string) => {
    mkdirSync(dirname(join(home, file)), { recursive: true })
    writeFileSync(join(home, file), text, { mode: 0o600 })
  }
  const args = [...program.slice(1), "mcp"]

  beforeAll(() => {
    home = mkdtempSync(join(tmpdir(), "bhatti-mcp-"))
    place(".bhatti/config.yaml", `api_url: ${daemon.url}\nauth_token: ${daemon.key}\n`)
  })
  afterAll(() => rmSync(home, { recursive: true }))

  test("adds the entry to the client's file, keeps everything else, and does it once", async () => {
    place(".claude.json", '{\n    "theme": "dark",\n    "mcpServers": { "other": { "command": "x" } }\n}\n')
    expect((await install(["claude-code"])).stdout).toContain("added bhatti to")
    const written = textOf(".claude.json")
    expect(JSON.parse(written)).toEqual({
      theme: "dark",
      mcpServers: { other: { command: "x" }, bhatti: { type: "stdio", command: program[0], args } },
    })
    expect(written).not.toContain("bht_")
    expect(written).toContain('\n    "theme"')
    expect(statSync(join(home, ".claude.json")).mode & 0o777).toBe(0o600)
    expect((await install(["claude-code"])).stdout).toContain("has it already")
    expect(textOf(".claude.json")).toBe(written)
  })

  test("makes the file of each client, and adds to TOML behind what is there", async () => {
    const made = await Promise.all(
      ["claude-desktop", "cursor", "vscode", "windsurf", "gemini"].map((client) => install([client])),
    )
    expect(made.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0, 0])
    expect(JSON.parse(textOf(".cursor/mcp.json")).mcpServers.bhatti.args).toEqual(args)
    place(".codex/config.toml", '# mine\nmodel = "m"\n')
    expect((await install(["codex"])).exitCode).toBe(0)
    expect(textOf(".codex/config.toml")).toStartWith('# mine\nmodel = "m"\n\n[mcp_servers."bhatti"]\n')
    expect((await install(["codex"])).stdout).toContain("has it already")
  })

  test("changes nothing with --print, nor in a file that it does not understand", async () => {
    const printed = await install(["cursor", "--name", "another", "--print"])
    expect(JSON.parse(printed.stdout).mcpServers.another.args).toEqual(args)
    expect(textOf(".cursor/mcp.json")).not.toContain("another")
    place(".gemini/settings.json", "{ // a comment\n}\n")
    const refused = await install(["gemini"])
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("--print")])
    expect(textOf(".gemini/settings.json")).toBe("{ // a comment\n}\n")
    expect((await install(["emacs"])).stderr).toContain("claude-code, claude-desktop")
  })

  test("names the file of another key, and refuses a key that only the shell has", async () => {
    place("agent.yaml", `auth_token: ${daemon.key}\n`)
    const file = join(home, "agent.yaml")
    await install(["cursor", "--name", "agent"], { BHATTI_CONFIG: file })
    expect(JSON.parse(textOf(".cursor/mcp.json")).mcpServers.agent.env).toEqual({ BHATTI_CONFIG: file })
    const none = { BHATTI_CONFIG: join(home, "none.yaml"), BHATTI_TOKEN: daemon.key }
    expect((await install(["cursor"], none)).stderr).toContain("bhatti setup")
  })
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
