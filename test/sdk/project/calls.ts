/**
 * The same calls in every runtime. This file is compiled in a project that has only the installed packages, so it uses
 * no test library, and nothing that a browser or Node.js 20 lacks.
 */

import { AppError, type Client, type ClientOptions, connect, type Sandbox } from "@bhatti/sdk"

export type Options = ClientOptions & {
  /** The runtime sends a stream as a request's body; browsers do so only over HTTP/2. */
  sendsStreams: boolean
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const bytesOf = (value: string): Uint8Array<ArrayBuffer> => new Uint8Array(new TextEncoder().encode(value))

function same(actual: unknown, expected: unknown): void {
  const [one, other] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (one !== other) throw new Error(`${one}, expected ${other}`)
}

async function failsWith(code: string, calling: Promise<unknown>): Promise<AppError> {
  const error: unknown = await calling.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AppError) || error.code !== code) throw new Error(`no ${code}`, { cause: error })
  return error
}

async function collect(output: AsyncIterable<{ bytes: Uint8Array }>): Promise<string> {
  let all = ""
  for await (const { bytes } of output) all += text(bytes)
  return all
}

const calls: Record<string, (bhatti: Client, options: Options) => Promise<void>> = {
  async health(bhatti) {
    same((await bhatti.health()).status, "ok")
  },
  async version(bhatti) {
    let header: string | null = null
    const { version } = await bhatti.version({
      onHeaders: (headers) => {
        header = headers.get("x-bhatti-version")
      },
    })
    same(header, version)
  },
  async create(bhatti) {
    const sandbox: Sandbox = await bhatti.createSandbox({ body: { name: "dev", labels: { team: "a" } } })
    same([sandbox.name, sandbox.status], ["dev", "running"])
  },
  async "create with a name that is taken"(bhatti) {
    const error = await failsWith("conflict", bhatti.createSandbox({ body: { name: "dev" } }))
    same([error.retryable, typeof error.hint], [false, "string"])
  },
  async "create with a wrong field"(bhatti) {
    await failsWith("invalid", bhatti.createSandbox({ body: { name: "x", cpus: 0 } }))
  },
  async "create a batch"(bhatti) {
    const several = await bhatti.createSandboxes({ body: { name: "many", count: 2 } })
    same(
      several.map(({ name }) => name),
      ["many-1", "many-2"],
    )
  },
  async get(bhatti) {
    same((await bhatti.getSandbox({ params: { id: "dev" } })).name, "dev")
    await failsWith("not_found", bhatti.getSandbox({ params: { id: "../health" } }))
  },
  async list(bhatti) {
    const found = await bhatti.listSandboxes({ query: { label: "team=a" } })
    same(
      found.map(({ name }) => name),
      ["dev"],
    )
  },
  async edit(bhatti) {
    const edited = await bhatti.updateSandbox({ params: { id: "dev" }, body: { labels_add: { team: "b" } } })
    same(edited.labels, { team: "b" })
  },
  async exec(bhatti) {
    const { stdout, exit_code } = await bhatti.exec({
      params: { id: "dev" },
      body: { cmd: ["echo", "hé"] },
    })
    same([stdout, exit_code], ["hé\n", 0])
  },
  async "exec with input"(bhatti) {
    const { stdout } = await bhatti.exec({
      params: { id: "dev" },
      body: { cmd: ["cat"], stdin: "from here" },
    })
    same(stdout, "from here")
  },
  async "exec a program that is missing"(bhatti) {
    await failsWith("command_not_found", bhatti.exec({ params: { id: "dev" }, body: { cmd: ["nothing"] } }))
  },
  async "exec as a stream"(bhatti) {
    const run = bhatti.execStream("dev", { cmd: ["both"] })
    const seen: string[] = []
    for await (const { channel, bytes } of run.output) seen.push(`${channel} ${text(bytes)}`)
    same(seen, ["stdout out 1\n", "stderr err 1\n", "stdout out 2\n"])
    const { exit_code, signal, timed_out, reason } = await run.exit
    same([exit_code, signal, timed_out, reason], [0, null, false, "exited"])
  },
  async "a process without a client"(bhatti) {
    const { process_id } = await bhatti.startProcess({ params: { id: "dev" }, body: { cmd: ["both"] } })
    const params = { id: "dev", process: process_id }
    same((await bhatti.waitProcess({ params })).ended?.exit_code, 0)
    same(await (await bhatti.readProcess({ params, query: { offset: 4 } })).text(), "1\nout 2\n")
    const watching = bhatti.processStream("dev", process_id)
    let bytes = 0
    for await (const piece of watching.output) bytes += piece.bytes.length
    same([bytes, (await watching.exit).exit_code], [18, 0])
  },
  async "exec with more input than its window"(bhatti) {
    const run = bhatti.execStream("dev", { cmd: ["count"], stdin: true, window: 65_536 })
    await run.write(new Uint8Array(300_000))
    run.endInput()
    same(await collect(run.output), "300000\n")
  },
  async "exec with more output than its window"(bhatti) {
    const run = bhatti.execStream("dev", { cmd: ["flood", "300000"], window: 65_536 })
    let bytes = 0
    for await (const piece of run.output) bytes += piece.bytes.length
    same([bytes, (await run.exit).exit_code], [300_000, 0])
  },
  async "a signal before the stream is open"(bhatti) {
    const run = bhatti.execStream("dev", { cmd: ["sleep"] })
    run.signal("INT")
    same((await run.exit).signal, "INT")
  },
  async "a stream that is closed"(bhatti) {
    const closedAtOnce = bhatti.execStream("dev", { cmd: ["sleep"] })
    closedAtOnce.close()
    await failsWith("unavailable", closedAtOnce.exit)
    const run = bhatti.execStream("dev", { cmd: ["ready"] })
    const reader = run.output
    same(text((await reader.next()).value.bytes), "ready\n")
    run.close()
    same((await reader.next()).done, true)
  },
  async "a stream to a sandbox that is missing"(bhatti) {
    await failsWith("not_found", bhatti.execStream("nothing", { cmd: ["true"] }).exit)
  },
  async shell(bhatti) {
    const shell = bhatti.shellStream("dev", { new: "true", rows: 30, cols: 100, term: "xterm" })
    same((await shell.session).is_new, true)
    shell.resize({ rows: 40, cols: 120 })
    shell.type(bytesOf("x"))
    shell.type(bytesOf("q"))
    same(await collect(shell.output), "size 30x100 xterm\r\nresized 40x120\r\nkey 78\r\n")
    const end = await shell.end
    same(end.kind === "exited" && [end.exitCode, end.signal], [5, null])
  },
  async "a shell that is left"(bhatti) {
    const shell = bhatti.shellStream("dev", { new: "true" })
    const { session_id } = await shell.session
    shell.close()
    await shell.closed({ timeoutMs: 5000 })
    const sessions = await bhatti.listSessions({ params: { id: "dev" } })
    same(
      sessions.some((one) => one.session_id === session_id && one.running),
      true,
    )
    await bhatti.killSession({ params: { id: "dev", session: session_id }, body: {} })
  },
  async "write and read a file"(bhatti) {
    const params = { id: "dev" }
    await bhatti.writeFile({ params, query: { path: "/workspace/a.txt" }, bytes: "content" })
    same(await (await bhatti.readFile({ params, query: { path: "/workspace/a.txt" } })).text(), "content")
    const stat = await bhatti.statFile("dev", "/workspace/a.txt")
    same([stat.name, stat.size], ["a.txt", 7])
  },
  async "write a file from a Blob"(bhatti) {
    const bytes = new Blob([new Uint8Array(100_000)])
    await bhatti.writeFile({ params: { id: "dev" }, query: { path: "/workspace/b" }, bytes })
    same((await bhatti.statFile("dev", "/workspace/b")).size, 100_000)
  },
  async "write a file from a stream"(bhatti, { sendsStreams }) {
    if (!sendsStreams) return
    const { body } = new Response(new Uint8Array(100_000))
    if (body === null) throw new Error("no body")
    const query = { path: "/workspace/c" }
    await bhatti.writeFile({ params: { id: "dev" }, query, bytes: body, bytesCount: 100_000 })
    same((await bhatti.statFile("dev", "/workspace/c")).size, 100_000)
  },
  async "list, move and remove files"(bhatti) {
    const params = { id: "dev" }
    await bhatti.makeDirectory({ params, body: { path: "/workspace/d" } })
    await bhatti.moveFile({ params, body: { from: "/workspace/a.txt", to: "/workspace/d/a.txt" } })
    const { entries, isTruncated } = await bhatti.listFiles("dev", "/workspace/d")
    same([entries.map(({ name }) => name), isTruncated], [["a.txt"], false])
    await bhatti.removeFile({ params, query: { path: "/workspace/d", recursive: "true" } })
    await failsWith("not_found", bhatti.statFile("dev", "/workspace/d"))
  },
  async "an archive out and in"(bhatti) {
    const params = { id: "dev" }
    const archive = await bhatti.readArchive({ params, query: { path: "/workspace/b" } })
    const { entries } = await bhatti.writeArchive({
      params,
      query: { path: "/tmp" },
      bytes: new Uint8Array(await archive.arrayBuffer()),
    })
    same(entries, 1)
  },
  async snapshot(bhatti) {
    await bhatti.checkpointSandbox({ params: { id: "dev" }, body: { name: "kept" } })
    same(
      (await bhatti.listSnapshots()).map(({ name }) => name),
      ["kept"],
    )
    const resumed = await bhatti.resumeSnapshot({ params: { name: "kept" }, body: { name: "again" } })
    same(resumed.name, "again")
    await bhatti.deleteSnapshot({ params: { name: "kept" } })
  },
  async publish(bhatti) {
    const params = { id: "dev" }
    const { url } = await bhatti.publishPort({ params, body: { port: 8000 } })
    const published = await bhatti.listPublished({ params })
    same(
      published.map((one) => one.url),
      [url],
    )
    same(await bhatti.unpublishPort({ params: { id: "dev", port: "8000" } }), null)
  },
  async "stop, start and why"(bhatti) {
    const params = { id: "dev" }
    same((await bhatti.stopSandbox({ params })).status, "stopped")
    same(typeof (await bhatti.whySandbox({ params })).reason, "string")
    same((await bhatti.startSandbox({ params, body: {} })).status, "running")
  },
  async secrets(bhatti) {
    await bhatti.setSecret({ body: { name: "WORD", value: "x" } })
    same(
      (await bhatti.listSecrets()).map(({ name }) => name),
      ["WORD"],
    )
    await bhatti.deleteSecret({ params: { name: "WORD" } })
  },
  async "events, stored and followed"(bhatti) {
    const stored = await bhatti.listEvents({ query: { type: "secret." } })
    same(stored.length, 2)
    const following = bhatti.followEvents({ limit: 0, type: "secret." })
    const next = following.next()
    // The subscription may begin after the first of them.
    let isSeen = false
    next.then(
      () => {
        isSeen = true
      },
      () => undefined,
    )
    while (!isSeen) await bhatti.setSecret({ body: { name: "AGAIN", value: "x" } })
    const { value } = await next
    same(value?.type, "secret.set")
    await following.return(undefined)
  },
  async "a call that is aborted"(bhatti) {
    const reason = new Error("enough")
    const failed: unknown = await bhatti
      .health({ signal: AbortSignal.abort(reason) })
      .catch((error: unknown) => error)
    same(failed === reason, true)
  },
  async "a wrong key"(_, options) {
    const other = connect({ ...options, token: "bht_wrong" })
    await failsWith("unauthenticated", other.listSandboxes())
    await failsWith("unauthenticated", other.execStream("dev", { cmd: ["true"] }).exit)
  },
  async "no daemon"(_, options) {
    const other = connect({ ...options, url: "http://127.0.0.1:9" })
    const error = await failsWith("unavailable", other.health())
    same([error.retryable, error.message.includes("127.0.0.1:9")], [true, true])
    await failsWith("unavailable", other.execStream("dev", { cmd: ["true"] }).exit)
  },
  async destroy(bhatti) {
    for (const name of ["dev", "again", "many-1", "many-2"])
      same((await bhatti.destroySandbox({ params: { id: name } })).status, "destroyed")
    same(await bhatti.listSandboxes(), [])
  },
}

/** Returns the names of the calls that did as expected; throws at the first that did not. */
export async function runCalls(options: Options): Promise<string[]> {
  const bhatti = connect(options)
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call(bhatti, options)
    } catch (cause) {
      throw new Error(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    }
  }
  return Object.keys(calls)
}
