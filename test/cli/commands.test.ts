/** Every command against a daemon without machines: what it asks for, what it prints, how it exits. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import { version } from "../../src/lib/version.ts"
import { FakeDaemon, fakeVersion, testKey } from "./fake-daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"

const daemon = new FakeDaemon()
afterAll(() => daemon[Symbol.dispose]())
beforeEach(() => {
  daemon.sandboxes.clear()
  daemon.createError = undefined
  daemon.rawAnswer = undefined
  daemon.requests.length = 0
})

test("version says the version and the address, without asking the daemon", async () => {
  const ran = await bhatti(["version"], { daemon })
  expect(ran).toEqual({ stdout: `bhatti v${version}\napi: ${daemon.url}\n`, stderr: "", exitCode: 0 })
  expect(daemon.requests).toEqual([])
  expect((await bhatti(["--version"], { daemon })).stdout).toBe(ran.stdout)
})

test("version --daemon shows what the host can promise", async () => {
  const { stdout } = await bhatti(["version", "--daemon"], { daemon })
  expect(stdout).toContain("daemon: v9.9.9, software emulation (no /dev/kvm)")
  expect(stdout).toContain("warning: software emulation is no security boundary")
  const json = await bhatti(["version", "--daemon", "--json"], { daemon })
  expect(JSON.parse(json.stdout)).toEqual(fakeVersion)
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
  daemon.createError = {
    code: "limit_exceeded",
    message: "you have 5 of 5 sandboxes",
    hint: "bhatti destroy NAME",
  }
  const ran = await bhatti(["create"], { daemon })
  expect(ran).toEqual({
    stdout: "",
    stderr: "bhatti: you have 5 of 5 sandboxes\n  try: bhatti destroy NAME\n",
    exitCode: 1,
  })
})

test("list aligns its columns", async () => {
  daemon.addSandbox("dev")
  daemon.addSandbox("a-longer-name", { status: "stopped", thermal: null, ip: "10.0.0.2" })
  const { stdout } = await bhatti(["list"], { daemon })
  expect(stdout).toBe(
    [
      "NAME           STATUS   THERMAL  IP",
      "dev            running  hot      -",
      "a-longer-name  stopped  -        10.0.0.2",
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
  const sandbox = daemon.addSandbox("dev")
  const list = await bhatti(["list", "--json"], { daemon })
  expect(JSON.parse(list.stdout)).toEqual([sandbox])
  const inspect = await bhatti(["inspect", "dev", "--json"], { daemon })
  expect(JSON.parse(inspect.stdout)).toEqual(sandbox)
})

test("inspect takes a name or an id", async () => {
  const sandbox = daemon.addSandbox("dev", { status: "stopped", status_reason: "its disk is gone" })
  const { stdout } = await bhatti(["info", sandbox.id], { daemon })
  expect(stdout).toContain("status   stopped (its disk is gone)")
})

test("destroy takes several names, tries them all, and fails if one failed", async () => {
  daemon.addSandbox("a")
  daemon.addSandbox("b")
  const ran = await bhatti(["destroy", "a", "missing", "b"], { daemon })
  expect(ran.stdout).toBe("sandbox/a destroyed\nsandbox/b destroyed\n")
  expect(ran.stderr).toBe('bhatti: no sandbox named "missing"\n  try: bhatti list\n')
  expect(ran.exitCode).toBe(1)
  expect(daemon.sandboxes.size).toBe(0)
})

test("destroy --json prints the contract's reply", async () => {
  daemon.addSandbox("a")
  const { stdout } = await bhatti(["rm", "-y", "a", "--json"], { daemon })
  expect(JSON.parse(stdout)).toEqual({ status: "destroyed" })
})

test("destroy asks a person at a terminal, and no is no", async () => {
  daemon.addSandbox("a")
  for (const [answer, exitCode, left] of [
    ["n", 1, 1],
    ["y", 0, 0],
  ] as const) {
    let screen = ""
    const child = Bun.spawn([...program, "destroy", "a"], {
      env: environment(daemon),
      terminal: {
        data: (_, bytes) => {
          screen += new TextDecoder().decode(bytes)
        },
      },
    })
    await until("the question", () => screen.includes("Destroy a and everything on its disk?"))
    child.terminal?.write(`${answer}\n`)
    expect(await child.exited).toBe(exitCode)
    expect(daemon.sandboxes.size).toBe(left)
  }
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

test("a wrong key: says where it came from", async () => {
  const wrong = await bhatti(["list", "--token", "bht_wrong"], { daemon })
  expect(wrong.stderr).toContain("bhatti: the API key is not valid\n")
  expect(wrong.stderr).toContain("--token")
  expect(wrong.stderr).not.toContain("bht_wrong")
  expect(wrong.exitCode).toBe(1)
  const none = await bhatti(["list"], { env: { BHATTI_URL: daemon.url } })
  expect(none.stderr).toContain("no API key is set")
})

test("an answer that is not bhatti's is told as such", async () => {
  daemon.rawAnswer = () => new Response("<html>", { headers: { "content-type": "text/html" } })
  expect((await bhatti(["list"], { daemon })).stderr).toContain("answered with something else than JSON")
  daemon.rawAnswer = () => new Response("Bad gateway", { status: 502 })
  expect((await bhatti(["list"], { daemon })).stderr).toContain("answered 502 without saying why")
})

test("text from the daemon cannot move the cursor or fake a line", async () => {
  daemon.createError = { code: "conflict", message: "a\u001b[2J\nbhatti: all is well", hint: null }
  const { stderr } = await bhatti(["create"], { daemon })
  expect(stderr).toBe("bhatti: a?[2J bhatti: all is well\n")
})

test("wrong usage exits 2 and reaches no daemon", async () => {
  const cases: [string[], string][] = [
    [["lst"], 'unknown command "lst"\n  did you mean bhatti list?'],
    [["usr", "list"], "did you mean bhatti user?"],
    [["user", "creat"], "did you mean bhatti user create?"],
    [["create", "--memroy", "1"], "unknown option --memroy\n  did you mean --memory?"],
    [["create", "-z"], "unknown option -z"],
    [["create", "--cpus"], "--cpus needs a value: --cpus N"],
    [["create", "--cpus", "0"], "--cpus must be between 1 and"],
    [["create", "--cpus", "-1"], "--cpus must be between 1 and"],
    [["create", "--cpus", "1.5"], "--cpus takes a whole number"],
    [["create", "--memory", "64"], "--memory must be between 128 and"],
    [["create", "--memory", "99999999999"], "--memory must be between"],
    [["create", "--memory", "lots"], "--memory takes a size"],
    [["create", "--disk", "1G"], "--disk must be between 8192"],
    [["create", "--env", "NOPE"], "--env takes KEY=VALUE pairs"],
    [["create", "--json=1"], "--json takes no value"],
    [["create", "dev"], 'unexpected argument "dev"'],
    [["inspect"], "SANDBOX is missing"],
    [["destroy"], "SANDBOX is missing"],
    [["exec"], "SANDBOX is missing"],
    [["exec", "dev"], "COMMAND is missing"],
    [["exec", "dev", "--"], "COMMAND is missing"],
    [["exec", "--timeout", "0", "dev", "x"], "--timeout takes a number of seconds above 0"],
    [["user", "create"], "--name is missing"],
  ]
  const ran = await Promise.all(cases.map(([args]) => bhatti(args, { daemon })))
  for (const [index, [args, expected]] of cases.entries()) {
    const { stdout, stderr, exitCode } = ran[index] ?? { stdout: "", stderr: "", exitCode: 0 }
    expect({ args, stdout, exitCode }).toEqual({ args, stdout: "", exitCode: 2 })
    expect(stderr).toContain(expected)
  }
  expect(daemon.requests).toEqual([])
})

test("options may stand before the command", async () => {
  const sandbox = daemon.addSandbox("dev")
  const { stdout } = await bhatti(["--url", daemon.url, "--token", testKey, "--json", "inspect", "dev"])
  expect(JSON.parse(stdout)).toEqual(sandbox)
})

test("a full disk behind standard output is an error", async () => {
  daemon.addSandbox("dev")
  const child = Bun.spawn(["sh", "-c", '"$@" > /dev/full', "sh", ...program, "list"], {
    env: environment(daemon),
    stderr: "pipe",
  })
  expect(await child.stderr.text()).toContain("cannot write to standard output (ENOSPC)")
  expect(await child.exited).toBe(1)
})

test("a reader that goes away ends a command quietly", async () => {
  for (let index = 0; index < 3000; index++) daemon.addSandbox(`sandbox-${index}`)
  const child = Bun.spawn(
    ["sh", "-c", '("$@"; echo "code $?" >&2) | head -1', "sh", ...program, "list", "-w"],
    {
      env: environment(daemon),
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  expect(await child.stdout.text()).toMatch(/^NAME .*\n$/)
  expect(await child.stderr.text()).toBe("code 141\n")
})
