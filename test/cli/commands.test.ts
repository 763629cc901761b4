/** Every command against the real application on a fake host: what it asks for, what it prints, how it exits. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError, errorStatus } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { connect } from "@bhatti/sdk/client"
import { version } from "../../src/lib/version.ts"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, type Reachable, until } from "./program.ts"
import { Screen } from "./screen.ts"

const about = {
  version: "9.9.9",
  accelerator: "tcg" as const,
  acceleratorReason: "no /dev/kvm",
  warnings: ["software emulation is no security boundary"],
}
let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start({ about })
  daemon.host.moreImages = ["debian"]
})
afterEach(() => daemon[Symbol.asyncDispose]())

test("version says the version and the address, without asking the daemon", async () => {
  const ran = await bhatti(["version"], { daemon })
  expect(ran).toEqual({ stdout: `bhatti v${version}\napi: ${daemon.url}\n`, stderr: "", exitCode: 0 })
  expect(daemon.requests).toEqual([])
  expect((await bhatti(["--version"], { daemon })).stdout).toBe(ran.stdout)
})

test("version says the version even when the settings cannot be read", async () => {
  const ran = await bhatti(["version"], { env: { BHATTI_CONFIG: "/dev/null/x" } })
  expect(ran.stdout).toBe(`bhatti v${version}\n`)
  expect(ran.stderr).toContain("no configuration file at /dev/null/x")
  expect(ran.exitCode).toBe(1)
})

test("version --daemon shows what the host can promise", async () => {
  const { stdout } = await bhatti(["version", "--daemon"], { daemon })
  expect(stdout).toContain("daemon: v9.9.9, software emulation (no /dev/kvm)")
  expect(stdout).toContain("warning: software emulation is no security boundary")
  const json = await bhatti(["version", "--daemon", "--json"], { daemon })
  expect(stdout).toContain("new sandboxes are cloned: no machine of this host is forked")
  const { version, accelerator, acceleratorReason: accelerator_reason, warnings } = about
  const starts = { starts: "clone", starts_reason: "no machine of this host is forked" }
  const features = ["exec_key", "input_writer"]
  const own = { default_registry: null, warnings, features }
  const told = { version, accelerator, accelerator_reason, ...starts, ...own }
  expect(JSON.parse(json.stdout)).toEqual(told)
})

test("create says what was made, and asks only for what was given", async () => {
  const { stdout, stderr, exitCode } = await bhatti(["create", "--name", "dev"], { daemon })
  expect(stdout).toMatch(/^sandbox\/dev created \(1 cpu, 512 MB\) in \d+\.\d\d s\n$/)
  expect(stderr).toBe("")
  expect(exitCode).toBe(0)
})

test("create passes size, image and environment", async () => {
  const args = ["create", "--name=big", "--cpus", "2", "--memory", "2G", "--disk", "20G", "--image", "debian"]
  const { stdout } = await bhatti([...args, "--json"], { daemon })
  expect(JSON.parse(stdout)).toMatchObject({
    name: "big",
    cpus: 2,
    memory_mb: 2048,
    disk_size_mb: 20480,
    image: "debian",
  })
})

test("create passes on the daemon's refusal", async () => {
  await using small = await Daemon.start({ maxSandboxes: 1 })
  await small.sandbox("dev")
  const ran = await bhatti(["create"], { daemon: small })
  expect(ran).toEqual({
    stdout: "",
    stderr:
      "bhatti: your limit on sandboxes, 1, is reached\n  destroy one of them, or ask the operator for a higher limit\n",
    exitCode: 1,
  })
})

test("what the daemon calls invalid are wrong words too; what this side cannot do is not", async () => {
  const ran = await bhatti(["create", "--allow-cidr", "10.0.0.0/99"], { daemon })
  expect(ran).toMatchObject({ stdout: "", exitCode: 2 })
  expect(ran.stderr).toStartWith("bhatti: net_policy.allow_cidrs.0: ")
  await using refusing = answersWith(({ url }) => {
    const code = url.endsWith("/a/stop") ? "invalid" : "not_found"
    return Response.json({ error: "no", code, message: "no", hint: null }, { status: errorStatus[code] })
  })
  expect((await bhatti(["stop", "a", "missing"], { daemon: refusing })).exitCode).toBe(2)
  expect((await bhatti(["create", "--init", "@/no/such"], { daemon })).exitCode).toBe(1)
  await using gateway = answersWith(() => new Response("Bad request", { status: 400 }))
  expect((await bhatti(["list"], { daemon: gateway })).exitCode).toBe(1)
})

test("create sends script, secrets, labels and files", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-create-"))
  try {
    const script = join(directory, "a:init.sh")
    writeFileSync(script, "#!/bin/sh\necho hi\n", { mode: 0o750 })
    const args = ["create", "--env", "A=1,B=2", "--env", "LIST=a,b", "--secret", "ONE", "--secret", "TWO"]
    const more = ["--label", "team=web,tier=1", "--init", `@${script}`, "--file", `${script}:/opt/init.sh`]
    for (const name of ["ONE", "TWO"]) await daemon.call("POST", "/secrets", { name, value: "x" })
    expect((await bhatti([...args, ...more], { daemon })).exitCode).toBe(0)
    expect(daemon.bodies("POST /sandboxes")[0]).toMatchObject({
      env: { A: "1", B: "2", LIST: "a,b" },
      secrets: ["ONE", "TWO"],
      labels: { team: "web", tier: "1" },
      init: "#!/bin/sh\necho hi\n",
      files: [{ guest_path: "/opt/init.sh", content: btoa("#!/bin/sh\necho hi\n"), mode: "0750" }],
    })

    const large = join(directory, "large")
    writeFileSync(large, new Uint8Array(900_000))
    for (const [given, told] of [
      [["--name", "x", "--file", `${large}:/l`], `  create the sandbox, then: bhatti cp ${large} x:/l`],
      [["--file", `${directory}:/d`], "is not a file\n  directories are copied afterwards, with bhatti cp"],
      [["--file", "/no/such:/d"], "/no/such: there is no such file or directory"],
      [["--init", "@/no/such"], "/no/such: there is no such file or directory"],
    ] as const) {
      const refused = await bhatti(["create", ...given], { daemon })
      expect(refused.stderr).toContain(told)
      expect(refused.exitCode).toBe(1)
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test("create of a name that exists is an error, unless it may exist", async () => {
  await daemon.sandbox("dev")
  const again = await bhatti(["create", "--name", "dev"], { daemon })
  expect(again).toMatchObject({ exitCode: 1, stdout: "" })
  expect(again.stderr).toContain('a sandbox named "dev" exists already')
  const tolerant = await bhatti(["create", "dev", "--if-not-exists"], { daemon })
  expect(tolerant).toEqual({ stdout: "sandbox/dev unchanged (already exists)\n", stderr: "", exitCode: 0 })
  expect((await bhatti(["create", "--if-not-exists"], { daemon })).exitCode).toBe(2)
})

test("a create that takes its time says why", async () => {
  const held = daemon.host.hold("template")
  const wait = "preparing a template for 2 cpus, 1024 MB, once per size; the next create of it is fast"
  const child = Bun.spawn([...program, "create", "--name", "slow", "--cpus", "2", "--memory", "1G"], {
    env: environment(daemon),
    stdout: "pipe",
    stderr: "pipe",
  })
  const talk = child.stderr.getReader()
  const words = new TextDecoder().decode((await talk.read()).value)
  expect(words).toBe(`${wait}\n`)
  held.release()
  expect(await child.stdout.text()).toStartWith("sandbox/slow created")
})

test("-q prints names and nothing else", async () => {
  expect(await bhatti(["create", "-q", "--name", "one"], { daemon })).toEqual({
    stdout: "one\n",
    stderr: "",
    exitCode: 0,
  })
  await daemon.sandbox("two")
  await daemon.call("POST", "/sandboxes/two/publish", { port: 3000 })
  expect((await bhatti(["list", "--quiet"], { daemon })).stdout).toBe("one\ntwo\n")
  for (const name of ["one", "two"]) await daemon.call("DELETE", `/sandboxes/${name}`)
  expect(await bhatti(["list", "-q"], { daemon })).toEqual({ stdout: "", stderr: "", exitCode: 0 })
})

test("sizes are in GB where they are whole ones", async () => {
  const { stdout } = await bhatti(["create", "--name", "big", "--memory", "2048"], { daemon })
  expect(stdout).toStartWith("sandbox/big created (1 cpu, 2 GB) in")
})

test("list shows URLs where there are any, and only what has the labels", async () => {
  await daemon.sandbox("web", { labels: { team: "web", tier: "1" } })
  await daemon.call("POST", "/sandboxes/web/publish", { port: 3000, alias: "web-x" })
  await daemon.sandbox("job", { labels: { team: "web" } })
  daemon.host.network = null
  const { stdout } = await bhatti(["list"], { daemon })
  expect(stdout).toBe(
    [
      "NAME  STATUS   THERMAL  IP  URL",
      "web   running  hot      -   http://web-x.localhost:8080/",
      "job   running  hot      -   -",
      "",
    ].join("\n"),
  )
  const names = async (...args: string[]) =>
    JSON.parse((await bhatti(["list", "--json", ...args], { daemon })).stdout).map(
      ({ name }: { name: string }) => name,
    )
  expect(await names("--label", "team=web")).toEqual(["web", "job"])
  expect(await names("--label", "team=web,tier=1")).toEqual(["web"])
  expect(await names("--label", "team=web", "--label", "tier=2")).toEqual([])
  expect((await bhatti(["ls", "-w"], { daemon })).stdout).toContain("team=web,tier=1")
})

test("ps and kill", async () => {
  await daemon.sandbox("dev", { init: "a\nb" })
  daemon.host.endInit(3)
  const client = connect({ url: daemon.url, token: daemon.key })
  const shells = [client.shellStream("dev"), client.shellStream("dev", { new: "true" })]
  for (const shell of shells) await shell.session
  expect((await bhatti(["kill", "dev", "s3"], { daemon })).stdout).toBe("session/s3 of dev got KILL\n")
  const { stdout } = await bhatti(["ps", "dev"], { daemon })
  expect(stdout.split("\n").map((line) => line.replace(/\d+ s ago$/, "now"))).toEqual([
    "ID  NAME  KIND     COMMAND             STATE                    ATTACHED  STARTED",
    "s1  init  session  /bin/bash -lc a\\nb  exited 3                 no        now",
    "s2  -     session  bash -l             running                  yes       now",
    "s3  -     session  bash -l             killed by KILL (client)  no        now",
    "",
  ])
  const sessions = (await daemon.call("GET", "/sandboxes/dev/sessions")).body
  expect(JSON.parse((await bhatti(["ps", "dev", "--json"], { daemon })).stdout)).toMatchObject(
    sessions as object[],
  )
  await bhatti(["kill", "dev", "s2", "-s", "TERM"], { daemon })
  expect(daemon.bodies("POST /sandboxes/dev/sessions/s2/kill")).toEqual([{ signal: "TERM" }])
  expect(daemon.host.killed).toEqual([
    { session: "s3", signal: "KILL" },
    { session: "s2", signal: "TERM" },
  ])
})

test("publish prints the URL alone; --list, unpublish and ports", async () => {
  await daemon.sandbox("dev")
  const first = await bhatti(["publish", "dev", "-p", "3000"], { daemon })
  const url = first.stdout.trimEnd()
  expect(url).toMatch(/^http:\/\/dev-[a-z0-9]{10}\.localhost:8080\/$/)
  expect(first).toEqual({ stdout: `${url}\n`, stderr: "", exitCode: 0 })
  expect((await bhatti(["publish", "dev", "--list"], { daemon })).stdout).toMatch(
    /^PORT {2}URL +SINCE\n3000 {2}http:\/\/dev-[a-z0-9]{10}\.localhost:8080\/ {2}\d+ s ago\n$/,
  )
  expect((await bhatti(["ports", "dev"], { daemon })).stdout).toBe(
    `PORT  ADDRESS    URL\n3000  127.0.0.1  ${url}\n22    127.0.0.1  -\n`,
  )
  await bhatti(["publish", "dev", "--port", "3000", "-a", "my-app"], { daemon })
  expect(daemon.bodies("POST /sandboxes/dev/publish")).toEqual([
    { port: 3000 },
    { port: 3000, alias: "my-app" },
  ])
  expect((await bhatti(["unpublish", "dev", "-p", "3000", "-a", "my-app"], { daemon })).stdout).toBe(
    "port 3000 of dev is no longer published as my-app\n",
  )
  expect((await bhatti(["unpublish", "dev", "-p", "3000"], { daemon })).stdout).toBe(
    "port 3000 of dev is no longer published\n",
  )
  expect((await bhatti(["ports", "dev"], { daemon })).stdout).toBe(
    "PORT  ADDRESS\n3000  127.0.0.1\n22    127.0.0.1\n",
  )
  await daemon.call("POST", "/sandboxes/dev/publish", { port: 3000 })
  expect((await bhatti(["unpublish", "dev", "-p", "3000", "--json"], { daemon })).stdout).toBe("null\n")
  expect(daemon.queries("DELETE /sandboxes/dev/publish/3000")).toEqual([{ alias: "my-app" }, {}, {}])
})

test("secret set takes an argument, standard input, or what is typed twice without being shown", async () => {
  const bodies = () => daemon.bodies("POST /secrets")
  expect((await bhatti(["secret", "set", "KEY", "sk-1"], { daemon })).stdout).toBe("secret/KEY set\n")
  for (const stdin of ["sk-2\n", "two\nlines\n\n", "crlf\r\n", "bare"])
    await bhatti(["secret", "set", "KEY"], { daemon, stdin })
  expect(bodies()).toEqual(
    ["sk-1", "sk-2", "two\nlines\n", "crlf", "bare"].map((value) => ({ name: "KEY", value })),
  )
  for (const [second, exitCode] of [
    ["typed-secret", 0],
    ["another", 1],
  ] as const) {
    let screen = ""
    const child = Bun.spawn([...program, "secret", "set", "KEY"], {
      env: environment(daemon),
      terminal: {
        data: (_, bytes) => {
          screen += new TextDecoder().decode(bytes)
        },
      },
    })
    await until("the question", () => screen.includes("Value of KEY"))
    child.terminal?.write("typed-secret\r")
    await until("the second question", () => screen.includes("The same again"))
    child.terminal?.write(`${second}\r`)
    expect(await child.exited).toBe(exitCode)
    expect(screen).not.toContain("typed-secret")
  }
  expect(bodies().length).toBe(6)
  expect(bodies()[5]).toEqual({ name: "KEY", value: "typed-secret" })
})

test("secret list shows names, secret delete says so", async () => {
  await daemon.call("POST", "/secrets", { name: "KEY", value: "x" })
  expect((await bhatti(["secret", "list"], { daemon })).stdout).toMatch(/^NAME {2}SET\nKEY {3}\d+ s ago\n$/)
  expect((await bhatti(["secret", "delete", "KEY"], { daemon })).stdout).toBe("secret/KEY deleted\n")
  await daemon.call("POST", "/secrets", { name: "KEY", value: "x" })
  expect((await bhatti(["secret", "rm", "KEY"], { daemon })).stdout).toBe("secret/KEY deleted\n")
})

test("list aligns its columns", async () => {
  await daemon.sandbox("dev")
  await daemon.sandbox("a-longer-name")
  await daemon.call("POST", "/sandboxes/a-longer-name/stop")
  const { stdout } = await bhatti(["list"], { daemon })
  expect(stdout).toBe(
    [
      "NAME           STATUS   THERMAL  IP",
      "dev            running  hot      10.0.0.1",
      "a-longer-name  stopped  cold     10.0.0.2",
      "",
    ].join("\n"),
  )
  const wide = await bhatti(["ls", "-w"], { daemon })
  expect(wide.stdout).toContain("512 MB")
})

test("list of nothing prints nothing on standard output", async () => {
  const { stdout, stderr, exitCode } = await bhatti(["list"], { daemon })
  expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 0 })
  expect(stderr).toContain("bhatti create")
})

test("list --json and inspect --json print the contract's reply", async () => {
  const sandbox = await daemon.sandbox("dev")
  const list = await bhatti(["list", "--json"], { daemon })
  expect(JSON.parse(list.stdout)).toEqual([sandbox])
  const inspect = await bhatti(["inspect", "dev", "--json"], { daemon })
  expect(JSON.parse(inspect.stdout)).toEqual(sandbox)
})

test("inspect takes a name or an id", async () => {
  const sandbox = await daemon.sandbox("dev")
  const { process } = daemon.host.machines.find(sandbox.id) ?? {}
  daemon.host.isOutOfMemory = true
  daemon.host.running.delete(process?.pid ?? 0)
  daemon.core.guests.get(sandbox.id as never)?.close()
  await until("it is stopped", () => daemon.host.running.size === 0)
  const { stdout } = await bhatti(["info", sandbox.id], { daemon })
  expect(stdout).toContain("status      stopped (the host ran out of memory and ended its machine)")
})

test("destroy takes several names, tries them all, and fails if one failed", async () => {
  await daemon.sandbox("a")
  await daemon.sandbox("b")
  const ran = await bhatti(["destroy", "a", "missing", "b"], { daemon })
  expect(ran.stdout).toBe("sandbox/a destroyed\nsandbox/b destroyed\n")
  expect(ran.stderr).toBe('bhatti: no sandbox named "missing"\n  try: bhatti list\n')
  expect(ran.exitCode).toBe(1)
  expect(await daemon.names()).toEqual([])
})

test("destroy --json prints the contract's reply", async () => {
  await daemon.sandbox("a")
  const { stdout } = await bhatti(["rm", "-y", "a", "--json"], { daemon })
  expect(JSON.parse(stdout)).toEqual({ status: "destroyed" })
})

test("destroy asks a person at a terminal; yes is y or yes, all else is no", async () => {
  await daemon.sandbox("a")
  for (const [answer, exitCode, left] of [
    ["n", 1, 1],
    ["", 1, 1],
    ["yesterday", 1, 1],
    ["y", 0, 0],
    ["yes", 0, 0],
    [" YES ", 0, 0],
  ] as const) {
    if ((await daemon.names()).length === 0) await daemon.sandbox("a")
    await using screen = new Screen(daemon)
    await screen.bhatti("destroy a")
    await screen.shows("Destroy a and everything on its disk? [y/N] ")
    screen.type(`${answer}\n`)
    await screen.shows(`code=${exitCode}`)
    expect(await daemon.names()).toHaveLength(left)
  }
})

test("destroy does not ask about a sandbox that is not there", async () => {
  await daemon.sandbox("a")
  await using screen = new Screen(daemon)
  await screen.bhatti("destroy missing")
  await screen.shows('bhatti: no sandbox named "missing"\r\n')
  await screen.shows("code=1")
  expect(screen.text).not.toContain("[y/N]")
  await using other = new Screen(daemon)
  await other.bhatti("destroy missing a")
  await other.shows("Destroy a and everything on its disk? [y/N] ")
  other.type("y\n")
  await other.shows("code=1")
  expect(await daemon.names()).toEqual([])
})

test("a name reaches the daemon as one path segment, whatever it holds", async () => {
  await bhatti(["inspect", "../health?x=1"], { daemon })
  expect(daemon.requests).toEqual(["GET /sandboxes/..%2Fhealth%3Fx%3D1"])
})

test("no daemon: one line, what to do, exit 1", async () => {
  const ran = await bhatti(["list"], { env: { BHATTI_URL: "http://127.0.0.1:9" } })
  expect(ran.stdout).toBe("")
  expect(ran.stderr).toMatch(
    /^bhatti: no bhatti daemon answers at http:\/\/127\.0\.0\.1:9\n {2}try: sudo systemctl start bhatti/,
  )
  expect(ran.exitCode).toBe(1)
})

test("https to a daemon that speaks http: the hint is its address, not to start it", async () => {
  const ran = await bhatti(["list", "--url", daemon.url.replace("http:", "https:")])
  expect(ran.stderr).toContain("does not answer by TLS")
  expect(ran.stderr).toContain(`is at ${daemon.url};`)
  expect(ran.exitCode).toBe(1)
})

test("a wrong key: says where it came from", async () => {
  const wrong = await bhatti(["list", "--token", "bht_wrong"], { daemon })
  expect(wrong.stderr).toContain("bhatti: the API key is not valid\n")
  expect(wrong.stderr).toContain("--token")
  expect(wrong.stderr).not.toContain("bht_wrong")
  expect(wrong.exitCode).toBe(1)
  const none = await bhatti(["list"], { env: { BHATTI_URL: daemon.url } })
  expect(none.stderr).toContain("no API key is set")
})

test("with --json an error is a line of JSON on standard error, wherever it comes from", async () => {
  await daemon.sandbox("dev")
  const cases: [string[], Record<string, unknown>, number][] = [
    [
      ["inspect", "no", "--json"],
      { code: "not_found", message: 'no sandbox named "no"', hint: "bhatti list" },
      1,
    ],
    [["--json", "inspect", "no"], { code: "not_found" }, 1],
    [["list", "--json", "--token", "bht_wrong"], { code: "unauthenticated" }, 1],
    [["exec", "--json", "no", "--", "x"], { code: "not_found" }, 125],
    [["list", "--json", "--url", "http://127.0.0.1:9"], { code: "unavailable", retryable: true }, 1],
    [["list", "--json", "--url", "ftp://x"], { code: "invalid" }, 1],
    [["user", "list", "--json", "--data-dir", "/dev/null/x"], { code: "not_found" }, 1],
    [["creat", "--json"], { code: "invalid", hint: "did you mean bhatti create?" }, 2],
    [["create", "--json", "--cpus", "0"], { code: "invalid", hint: "bhatti create --help" }, 2],
  ]
  for (const [args, expected, exitCode] of cases) {
    const ran = await bhatti(args, { daemon })
    expect({ args, exitCode: ran.exitCode }).toEqual({ args, exitCode })
    expect(ran.stdout).toBe("")
    expect(ran.stderr).toMatch(/^\{.*\}\n$/)
    const error = JSON.parse(ran.stderr)
    expect(error).toMatchObject(expected)
    expect(error.error).toBe(error.message)
  }
  // The guest command's own --json is not ours.
  const guests = await bhatti(["exec", "no", "--", "ls", "--json"], { daemon })
  expect(guests.stderr).toStartWith("bhatti: no sandbox")
})

test("with --json every name that fails has a line of its own", async () => {
  const ran = await bhatti(["destroy", "--json", "one", "two"], { daemon })
  const errors = ran.stderr.trimEnd().split("\n")
  expect(errors.map((line) => JSON.parse(line).message)).toEqual([
    'no sandbox named "one"',
    'no sandbox named "two"',
  ])
  expect(ran.exitCode).toBe(1)
})

/** Something else than a daemon, at its address. */
function answersWith(answer: (request: Request) => Response): Reachable & AsyncDisposable {
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: answer })
  return {
    url: `http://127.0.0.1:${server.port}`,
    key: daemon.key,
    [Symbol.asyncDispose]: () => server.stop(true),
  }
}

test("an answer that is not bhatti's is told as such", async () => {
  await using page = answersWith(() => new Response("<html>", { headers: { "content-type": "text/html" } }))
  expect((await bhatti(["list"], { daemon: page })).stderr).toContain(
    "answered with something other than JSON",
  )
  await using gateway = answersWith(() => new Response("Bad gateway", { status: 502 }))
  expect((await bhatti(["list"], { daemon: gateway })).stderr).toContain("answered 502 without saying why")
})

test("text from the daemon cannot move the cursor or fake a line", async () => {
  daemon.host.failAt = "clone"
  daemon.host.failure = new AppError("conflict", "a\u001b[2J\nbhatti: all is well")
  const { stderr } = await bhatti(["create"], { daemon })
  expect(stderr).toBe("bhatti: a?[2J bhatti: all is well\n")
})

test("wrong usage exits 2 and reaches no daemon", async () => {
  const cases: [string[], string][] = [
    [["lst"], 'unknown command "lst"\n  did you mean bhatti list?'],
    [["delete", "dev"], 'unknown command "delete"\n  did you mean bhatti destroy?'],
    [["ssh", "dev"], "did you mean bhatti shell?"],
    [["push", "x", "dev:/"], "did you mean bhatti cp?"],
    [["sandboxes"], "did you mean bhatti list?"],
    [["file", "cat", "dev", "x"], "did you mean bhatti file read?"],
    [["snapshot", "restore", "x"], "did you mean bhatti snapshot resume?"],
    [["user", "add", "x"], "did you mean bhatti user create?"],
    [["usr", "list"], "did you mean bhatti user?"],
    [["user", "creat"], "did you mean bhatti user create?"],
    [["create", "--memroy", "1"], "unknown option --memroy\n  did you mean --memory?"],
    [["share", "dev"], 'unknown command "share"\n  try: bhatti --help'],
    [["update"], 'unknown command "update"\n  try: bhatti --help'],
    [["create", "--mount", "a:b"], "unknown option --mount\n  try: bhatti create --help"],
    [["publish", "dev", "--shell"], "unknown option --shell\n  try: bhatti publish --help"],
    [["create", "--disk-size", "9G"], "unknown option --disk-size\n  did you mean --disk?"],
    [["create", "-name", "dev"], "unknown option -n\n  did you mean --name?"],
    [["create", "-cpus=2"], "unknown option -c\n  did you mean --cpus?"],
    [["create", "-z"], "unknown option -z\n  try: bhatti create --help"],
    [["--jsn", "list"], "unknown option --jsn before the command\n  did you mean --json?"],
    [["--nonsense"], "unknown option --nonsense before the command\n  try: bhatti --help"],
    [["create", "--cpus"], "--cpus needs a value: --cpus N"],
    [["create", "--cpus", "0"], "--cpus must be between 1 and"],
    [["create", "--cpus", "-1"], "--cpus must be between 1 and"],
    [["create", "--cpus", "1.5"], "--cpus takes a whole number"],
    [["create", "--memory", "64"], "--memory must be between 128 and"],
    [["create", "--memory", "99999999999"], "--memory must be between"],
    [["create", "--memory", "lots"], "--memory takes a size"],
    [["create", "--disk", "1G"], "--disk must be between 8192"],
    [["create", "--env", "NOPE"], "--env takes KEY=VALUE pairs"],
    [
      ["create", "--env", "a=1,b=2"],
      "--env is unclear: b can be a variable of its own, or a part of a's value",
    ],
    [["exec", "-e", "A=1,b=2,C=3", "dev", "x"], "-e is unclear: C can be"],
    [["create", "--json=1"], "--json takes no value"],
    [["create", "dev", "x"], 'unexpected argument "x"'],
    [["create", "dev", "--name", "x"], "the name is given twice"],
    [["inspect"], "SANDBOX is missing"],
    [["destroy"], "SANDBOX is missing"],
    [["exec"], "SANDBOX is missing"],
    [["exec", "dev"], "COMMAND is missing\n  try: bhatti exec --help"],
    [["exec", "dev", "--"], "COMMAND is missing"],
    [["exec", "--timeout", "0", "dev", "x"], "--timeout takes a time above 0 such as 90, 5m, 2h or 1d"],
    [["user", "create"], "--name is missing"],
    [["publish", "dev", "--list", "-p", "1"], "--list takes no --port or --alias"],
    [["publish", "dev", "-p", "70000"], "-p must be between 1 and 65535"],
    [["unpublish", "dev"], "--port is missing"],
    [["kill", "dev"], "PROCESS is missing"],
    [["kill", "dev", "s1", "--signal", "WINCH"], "--signal is one of KILL, TERM"],
    [["shell", "dev", "s1", "--new"], "--new starts another session"],
    [["secret", "set"], "NAME is missing"],
    [["file", "read", "dev"], "PATH is missing"],
    [["file"], "Usage: bhatti file COMMAND"],
    [["serve", "--accel", "xen"], "--accel is one of auto, kvm, tcg"],
    [["help", "nope"], 'unknown command "nope"\n  try: bhatti --help'],
    [["help", "user", "creat"], "did you mean bhatti user create?"],
    [["events", "--since", "soon"], "--since takes a time such as 90, 5m, 2h or 1d"],
    [
      ["create", "--warm-after", "soon"],
      "--warm-after takes a time such as 90, 5m, 2h or 1d, never or default",
    ],
    [["rm", ""], "the sandbox's name is empty"],
    [["exec", "", "--", "x"], "the sandbox's name is empty"],
    [["shell", ""], "the sandbox's name is empty"],
    [["create", ""], "NAME is empty"],
    [["file", "rm", "dev", "a", ""], "PATH is empty"],
    [["list", "--token", ""], "--token is empty"],
    [["--token=", "list"], "--token is empty"],
    [["list", "--url", ""], "--url is empty"],
    [["setup", "--url", "http://x", "--token", ""], "--token is empty"],
    [["create", "--file", "nocolon"], "--file takes LOCAL:GUEST"],
  ]
  const ran = await Promise.all(cases.map(([args]) => bhatti(args, { daemon })))
  for (const [index, [args, expected]] of cases.entries()) {
    const { stdout, stderr, exitCode } = ran[index] ?? { stdout: "", stderr: "", exitCode: 0 }
    expect({ args, stdout, exitCode }).toEqual({ args, stdout: "", exitCode: 2 })
    expect(stderr).toContain(expected)
  }
  expect(daemon.requests).toEqual([])
  // Some forty processes at once, which a busy host needs a while for.
}, 30_000)

test("what begins with a dash and is no option is not shown: it may be a key", async () => {
  const hint = "write -- before a word that begins with a dash, or give it on standard input"
  for (const [args, told] of [
    [["secret", "set", "K", "-----BEGIN KEY-----\nQUJD"], `unknown option\n  ${hint}\n`],
    [["secret", "set", "K", "--=QUJD"], `unknown option\n  ${hint}\n`],
    [["secret", "set", "K", "-QUJD"], `unknown option -Q\n  ${hint}\n`],
    [["secret", "set", "K", "--sk-live_QUJD"], `unknown option --sk-live...\n  ${hint}\n`],
    [["secret", "set", "K", "a", "QUJD"], "more words than it takes\n  try: bhatti secret set --help\n"],
    [["cp", "--QUJD", "dev:"], "unknown option\n  write -- before a word that begins with a dash\n"],
    [["--QUJD", "list"], "unknown option before the command\n  try: bhatti --help\n"],
  ] as const) {
    const ran = await bhatti(args, { daemon })
    expect(ran).toEqual({ stdout: "", stderr: `bhatti: ${told}`, exitCode: 2 })
  }
  await bhatti(["secret", "set", "K", "--", "-----BEGIN"], { daemon })
  await bhatti(["secret", "set", "K", ""], { daemon })
  expect(daemon.bodies("POST /secrets")).toEqual(["-----BEGIN", ""].map((value) => ({ name: "K", value })))
})

test("options may stand before the command", async () => {
  const sandbox = await daemon.sandbox("dev")
  const { stdout } = await bhatti(["--url", daemon.url, "--token", daemon.key, "--json", "inspect", "dev"])
  expect(JSON.parse(stdout)).toEqual(sandbox)
})

test("a full disk behind standard output is an error", async () => {
  await daemon.sandbox("dev")
  const child = Bun.spawn(["sh", "-c", '"$@" > /dev/full', "sh", ...program, "list"], {
    env: environment(daemon),
    stderr: "pipe",
  })
  expect(await child.stderr.text()).toContain("cannot write to standard output (ENOSPC)")
  expect(await child.exited).toBe(1)
})

test("a reader that goes away ends a command quietly", async () => {
  await using many = await Daemon.start({ maxSandboxes: 3 * limits.createCountMax })
  const label = (index: number) => [`k${index}`.padEnd(60, "k"), "v".repeat(60)]
  const labels = Object.fromEntries(Array.from({ length: limits.labelsMax }, (_, index) => label(index)))
  for (const name of ["a", "b", "c"])
    await many.call("POST", "/sandboxes/batch", { name, count: limits.createCountMax, labels })
  const child = Bun.spawn(
    ["sh", "-c", '("$@"; echo "code $?" >&2) | head -1', "sh", ...program, "list", "-w"],
    {
      env: environment(many),
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  expect(await child.stdout.text()).toMatch(/^NAME .*\n$/)
  expect(await child.stderr.text()).toBe("code 141\n")
})

test("standard input that cannot be read is told as such, whatever it was for", async () => {
  await daemon.sandbox("dev")
  for (const [args, exitCode] of [
    [["exec", "-i", "dev", "cat"], 125],
    [["exec", "-i", "--json", "dev", "cat"], 125],
    [["file", "write", "dev", "x"], 1],
    [["cp", "-", "dev:x"], 1],
    [["secret", "set", "X"], 1],
  ] as const) {
    const child = Bun.spawn(["sh", "-c", '"$@" < /', "sh", ...program, ...args], {
      env: environment(daemon),
      stdout: "pipe",
      stderr: "pipe",
    })
    expect(await child.stderr.text()).toContain("cannot read standard input (")
    expect([args, await child.exited]).toEqual([args, exitCode])
  }
})

test("stop and start try every name, one after the other", async () => {
  for (const [verb, done] of [
    ["stop", "stopped"],
    ["start", "started"],
  ] as const) {
    if (verb === "stop") for (const name of ["a", "b"]) await daemon.sandbox(name)
    daemon.sent.length = 0
    const ran = await bhatti([verb, "a", "missing", "b", "a"], { daemon })
    expect(ran.stdout).toMatch(new RegExp(`^sandbox/a ${done} in .*\nsandbox/b ${done} in .*\n$`))
    expect(ran.stderr).toBe('bhatti: no sandbox named "missing"\n  try: bhatti list\n')
    expect(ran.exitCode).toBe(1)
    expect(daemon.requests).toEqual(["a", "missing", "b"].map((name) => `POST /sandboxes/${name}/${verb}`))
    expect((await bhatti([verb], { daemon })).stderr).toStartWith("bhatti: SANDBOX is missing\n")
  }
})

test("start insists only when it is told to", async () => {
  await daemon.sandbox("dev")
  for (const flags of [[], ["--force"]]) {
    const { stdout } = await bhatti(["start", "dev", ...flags], { daemon })
    expect(stdout).toStartWith("sandbox/dev started in ")
  }
  expect(daemon.bodies("POST /sandboxes/dev/start")).toEqual([{ force: false }, { force: true }])
})

test("key create prints the key alone, list shows it, and it can do what it may, until it is revoked", async () => {
  await daemon.sandbox("dev", {})
  const given = ["--sandbox", "dev", "--can", "exec,files", "--expires", "1d", "--name", "agent"]
  const made = await bhatti(["key", "create", ...given], { daemon })
  expect(made.stdout).toMatch(/^bht_[0-9a-f]{64}\n$/)
  expect(made.stderr).toMatch(/^key\/agent for dev: exec, files; expires .* It is not shown again\.\n$/)
  expect(daemon.bodies("POST /keys")).toEqual([
    { name: "agent", can: ["exec", "files"], sandboxes: ["dev"], expires_in: 86_400 },
  ])
  expect((await bhatti(["key", "list"], { daemon })).stdout).toMatch(/\nagent +dev +exec,files +in \d+ h +/)

  const asAgent = ["--token", made.stdout.trim()]
  expect((await bhatti(["exec", "dev", ...asAgent, "--", "true"], { daemon })).exitCode).toBe(0)
  const refused = await bhatti(["destroy", "-y", "dev", ...asAgent], { daemon })
  expect(refused.stderr).toContain('this key lacks the permission "destroy"')
  expect(refused.stderr).toContain("it has: exec, files; its user can make another")
  expect((await bhatti(["key", "revoke", "agent"], { daemon })).stdout).toBe("key/agent revoked\n")
  expect((await bhatti(["exec", "dev", ...asAgent, "--", "true"], { daemon })).exitCode).not.toBe(0)

  const wrong = await bhatti(["key", "create", "--can", "fly"], { daemon })
  expect(wrong.stderr).toContain("--can takes read, exec, files,")
  expect(wrong.exitCode).toBe(2)
})

test("key create --e2b prints a key in the form that e2b's SDKs take, with what their calls need", async () => {
  const made = await bhatti(["key", "create", "--e2b"], { daemon })
  expect(made.stdout).toMatch(/^e2b_[0-9a-f]{64}\n$/)
  expect(daemon.bodies("POST /keys")).toEqual([
    { can: ["read", "exec", "files", "power", "edit", "create", "destroy", "snapshots"] },
  ])
})
