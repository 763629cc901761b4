/** `bhatti exec` as a process: streams, order, exit codes, signals, back-pressure. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"

const windowBytes = limits.execKeyedWindowBytes
let daemon: Daemon
beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev")
})
afterAll(() => daemon[Symbol.asyncDispose]())

function start(args: readonly string[]) {
  return Bun.spawn([...program, "exec", ...args], {
    env: environment(daemon),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  })
}

test("prints what the command prints, with or without --", async () => {
  for (const args of [
    ["dev", "--", "echo", "hi"],
    ["dev", "echo", "hi"],
  ])
    expect(await bhatti(["exec", ...args], { daemon })).toEqual({ stdout: "hi\n", stderr: "", exitCode: 0 })
})

test("everything from the command's first word on belongs to it", async () => {
  await bhatti(["exec", "--cwd", "/tmp", "dev", "echo", "--json", "-t", "--", "--help"], { daemon })
  expect(daemon.lastExec.start).toMatchObject({ cmd: ["echo", "--json", "-t", "--", "--help"], cwd: "/tmp" })
  await bhatti(["exec", "dev", "-e", "A=1,2", "-e", "B=3", "-u", "root", "--timeout", "2.5", "--", "echo"], {
    daemon,
  })
  expect(daemon.lastExec.start).toMatchObject({
    cmd: ["echo"],
    env: { A: "1,2", B: "3" },
    user: "root",
    timeout_sec: 2.5,
    stdin: false,
    window: windowBytes,
  })
})

test("create and exec take variables alike: commas in values, and files, which --env overrides", async () => {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-env-"))
  try {
    const file = join(directory, "app.env")
    writeFileSync(file, "# mine\nDSN=host=db,PORT=5432\nDEBUG=0\n")
    const args = ["--env-file", file, "-e", "DEBUG=1", "--env", "OTHER=host=db,port=5432", "-e", "A=1,B=2"]
    const env = { DSN: "host=db,PORT=5432", DEBUG: "1", OTHER: "host=db,port=5432", A: "1", B: "2" }
    expect((await bhatti(["exec", ...args, "dev", "echo"], { daemon })).exitCode).toBe(0)
    expect(daemon.lastExec.start?.env).toEqual(env)
    expect((await bhatti(["create", ...args], { daemon })).exitCode).toBe(0)
    expect(daemon.bodies("POST /sandboxes")).toMatchObject([{ env }])
    const missing = await bhatti(["exec", "--env-file", `${file}.not`, "dev", "echo"], { daemon })
    expect(missing.stderr).toContain(`${file}.not: there is no such file or directory`)
    writeFileSync(file, "NOPE\n")
    const wrong = await bhatti(["exec", "--env-file", file, "dev", "echo"], { daemon })
    expect(wrong.stderr).toBe(`bhatti: ${file}, line 1 is not NAME=VALUE\n  try: bhatti exec --help\n`)
    expect([missing.exitCode, wrong.exitCode]).toEqual([2, 2])
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test("standard output and standard error stay apart", async () => {
  const ran = await bhatti(["exec", "dev", "both"], { daemon })
  expect(ran).toEqual({ stdout: "out 1\nout 2\n", stderr: "err 1\n", exitCode: 0 })
})

test("both in one pipe keep their order", async () => {
  const child = Bun.spawn(["sh", "-c", '"$@" 2>&1', "sh", ...program, "exec", "dev", "both"], {
    env: environment(daemon),
    stdout: "pipe",
  })
  expect(await child.stdout.text()).toBe("out 1\nerr 1\nout 2\n")
})

test("output comes while the command still runs", async () => {
  const child = start(["dev", "slow"])
  const reader = child.stdout.getReader()
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("first\n")
  daemon.lastProcess.released.resolve()
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("second\n")
  expect(await child.exited).toBe(0)
})

test("forwards the exit code", async () => {
  expect((await bhatti(["exec", "dev", "exit", "7"], { daemon })).exitCode).toBe(7)
  expect((await bhatti(["exec", "dev", "killed"], { daemon })).exitCode).toBe(137)
})

test("exit codes tell whose fault a failure is", async () => {
  const cases: [string[], number, string][] = [
    [["missing", "--", "echo"], 125, 'bhatti: no sandbox named "missing"\n  try: bhatti list\n'],
    [["dev", "--", "nosuch"], 127, 'bhatti: no program named "nosuch" in the sandbox\n'],
    ...(
      [
        ["invalid", 126],
        ["not_found", 127],
        ["invalid:no_user", 2],
        ["invalid:no_directory", 2],
        ["invalid:not_executable", 126],
        ["invalid:wrong_format", 126],
        ["invalid:denied", 126],
        ["invalid:too_long", 126],
        ["not_found:no_interpreter", 127],
        ["limit_exceeded:no_resources", 125],
        ["invalid:a_reason_of_a_later_version", 126],
      ] as const
    ).map(([why, code]): [string[], number, string] => [
      ["dev", "--", "refuse", why, "it"],
      code,
      "bhatti: cannot run it\n",
    ]),
    [["dev", "--", "refuse", "internal", "it"], 125, "bhatti: cannot run it\n"],
    [
      ["--timeout", "0.05", "dev", "--", "sleep"],
      124,
      "bhatti: the command was killed: its --timeout is over\n",
    ],
  ]
  for (const [args, exitCode, stderr] of cases)
    expect(await bhatti(["exec", ...args], { daemon })).toEqual({ stdout: "", stderr, exitCode })
  const child = start(["--reconnect", "0.2", "dev", "ready"])
  await child.stdout.getReader().read()
  daemon.isAway = true
  daemon.lastExec.cut()
  expect(await child.stderr.text()).toContain(
    "bhatti: the connection to the daemon was lost while the command ran",
  )
  expect(await child.exited).toBe(125)
  daemon.isAway = false
})

test("input that does not go to the command is told, and only that", async () => {
  const told = "of standard input did not go to the command"
  expect((await bhatti(["exec", "dev", "--", "echo"], { daemon, stdin: "hello" })).stderr).toContain(
    `5 bytes ${told}`,
  )
  expect((await bhatti(["exec", "-i", "dev", "--", "cat"], { daemon, stdin: "hello" })).stderr).toBe("")
  expect((await bhatti(["exec", "dev", "--", "echo"], { daemon })).stderr).toBe("")
})

test("what bhatti's own options are refused for is wrong usage, not a command that cannot be run", async () => {
  for (const [cwd, exitCode] of [
    ["/nowhere", 2],
    ["/tmp", 126],
  ] as const) {
    const before = daemon.execs.length
    const ran = await bhatti(["exec", "-w", cwd, "dev", "--", "refuse", "invalid", "it"], { daemon })
    expect(daemon.execs.length - before).toBe(1)
    expect(ran).toMatchObject({ stdout: "", exitCode })
    expect(ran.stderr).toBe(cwd === "/tmp" ? "bhatti: cannot run it\n" : 'bhatti: no directory "/nowhere"\n')
  }
})

test("a command that does not fit is refused before anything is sent", async () => {
  daemon.sent.length = 0
  const hint = "give many words or long ones through standard input (exec -i) or a file (bhatti cp)"
  for (const [words, told] of [
    [
      Array.from({ length: 4096 }, () => "x"),
      `the command has 4097 words; at most 4096 are allowed\n  ${hint}`,
    ],
    [
      Array.from({ length: 4095 }, () => "x".repeat(40)),
      `the command has 167.9 KB; at most 131.1 KB are allowed\n  ${hint}`,
    ],
    [
      ["\u0001".repeat(50_000)],
      `the command has 300.0 KB as it is sent; at most 261.1 KB are allowed\n  ${hint}`,
    ],
  ] as const)
    for (const flags of [[], ["--json"]]) {
      const ran = await bhatti(["exec", ...flags, "dev", "--", "echo", ...words], { daemon })
      expect(ran.exitCode).toBe(2)
      if (flags.length === 0) expect(ran).toEqual({ stdout: "", stderr: `bhatti: ${told}\n`, exitCode: 2 })
    }
  const nameless = await bhatti(["exec", "dev", "--", ""], { daemon })
  expect(nameless.stderr).toStartWith("bhatti: the command's name is empty\n")
  expect(nameless.exitCode).toBe(2)
  expect(daemon.requests).toEqual([])
  const most = Array.from({ length: 4095 }, () => "x".repeat(30))
  expect((await bhatti(["exec", "dev", "--", "echo", ...most], { daemon })).exitCode).toBe(0)
})

test("no daemon and a wrong key are 125", async () => {
  const noDaemon = await bhatti(["exec", "dev", "echo"], { env: { BHATTI_URL: "http://127.0.0.1:9" } })
  expect(noDaemon.exitCode).toBe(125)
  expect(noDaemon.stderr).toContain("no bhatti daemon answers at http://127.0.0.1:9")
  const wrongKey = await bhatti(["exec", "--token", "bht_wrong", "dev", "echo"], { daemon })
  expect(wrongKey.exitCode).toBe(125)
  expect(wrongKey.stderr).toContain("the API key is not valid")
})

test("-i forwards standard input and its end", async () => {
  const ran = await bhatti(["exec", "-i", "dev", "cat"], { daemon, stdin: "hi\nthere\n" })
  expect(ran).toEqual({ stdout: "hi\nthere\n", stderr: "", exitCode: 0 })
  expect((await bhatti(["exec", "-i", "dev", "cat"], { daemon, stdin: "" })).exitCode).toBe(0)
})

test("without -i standard input is left alone", async () => {
  const child = Bun.spawn(
    ["sh", "-c", 'printf "one\\ntwo\\n" | { "$@"; cat; }', "sh", ...program, "exec", "dev", "echo", "x"],
    { env: environment(daemon), stdout: "pipe" },
  )
  expect(await child.stdout.text()).toBe("x\none\ntwo\n")
})

test("a large input arrives whole", async () => {
  const child = Bun.spawn(
    ["sh", "-c", 'head -c 20000000 /dev/zero | "$@"', "sh", ...program, "exec", "-i", "dev", "count"],
    { env: environment(daemon), stdout: "pipe" },
  )
  expect(await child.stdout.text()).toBe("20000000\n")
})

test("a command that ends before its input does not wait for it", async () => {
  const child = start(["-i", "dev", "exit", "3"])
  expect(await child.exited).toBe(3)
})

test("100 MB arrive whole, with little memory and within the window", async () => {
  const bytes = 100_000_000
  const child = start(["dev", "flood", String(bytes)])
  const hash = new Bun.CryptoHasher("sha256")
  let received = 0
  let peakMib = 0
  for await (const piece of child.stdout) {
    received += piece.length
    hash.update(piece)
    peakMib = Math.max(peakMib, peakMibOf(child.pid))
  }
  expect(await child.exited).toBe(0)
  expect(received).toBe(bytes)
  expect(hash.digest("hex")).toBe(await floodHash(bytes))
  expect(daemon.lastExec.unacknowledgedMax).toBeLessThanOrEqual(windowBytes)
  expect(peakMib).toBeGreaterThan(0)
  expect(peakMib).toBeLessThan(250)
})

/** The most memory it has held; 0 when it has ended. What `getrusage` says would include ours, from before its exec. */
function peakMibOf(pid: number): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
    return Number(line?.[1] ?? 0) / 1024
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return 0
    throw error
  }
}

async function floodHash(bytes: number): Promise<string> {
  const piece = new Uint8Array(32_768).map((_, index) => 97 + (index % 26))
  const hash = new Bun.CryptoHasher("sha256")
  for (let left = bytes; left > 0; left -= piece.length)
    hash.update(piece.subarray(0, Math.min(left, piece.length)))
  return hash.digest("hex")
}

test("a reader that stops reading stops the daemon, not our memory", async () => {
  const child = start(["dev", "flood", "2000000000"])
  const reader = child.stdout.getReader()
  await reader.read()
  let last = -1
  let still = 0
  await until("the flow to stand still", () => {
    const now = daemon.lastExec.sentBytes
    still = now === last ? still + 1 : 0
    last = now
    return still > 50
  })
  expect(last).toBeLessThan(64 * windowBytes)
  const status = await Bun.file(`/proc/${child.pid}/status`).text()
  expect(Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1000).toBeLessThan(250)
  child.kill("SIGKILL")
  await until("the daemon to see us gone", () => daemon.lastExec.isClosed)
})

test("a reader that goes away ends the command quietly", async () => {
  const child = Bun.spawn(
    [
      "sh",
      "-c",
      '("$@"; echo "code $?" >&2) | head -c 5',
      "sh",
      ...program,
      "exec",
      "dev",
      "flood",
      "1000000000",
    ],
    { env: environment(daemon), stdout: "pipe", stderr: "pipe" },
  )
  expect(await child.stdout.text()).toBe("abcde")
  expect(await child.stderr.text()).toBe("code 141\n")
  await until("the daemon to see us gone", () => daemon.lastExec.isClosed)
})

test("appending to a file leaves no holes", async () => {
  const path = `/tmp/bhatti-cli-test-${process.pid}.out`
  const child = Bun.spawn(
    [
      "sh",
      "-c",
      'echo first > "$0"; "$@" >> "$0"; wc -c < "$0"; rm "$0"',
      path,
      ...program,
      "exec",
      "dev",
      "flood",
      "300000",
    ],
    { env: environment(daemon), stdout: "pipe" },
  )
  expect((await child.stdout.text()).trim()).toBe("300006")
})

test("a pipe that others write to stays blocking", async () => {
  const script = '"$@" >/dev/null; "$@"; grep flags /proc/self/fdinfo/1'
  const child = Bun.spawn(["sh", "-c", `(${script}) | cat`, "sh", ...program, "exec", "dev", "echo", "x"], {
    env: environment(daemon),
    stdout: "pipe",
  })
  const flags = /flags:\s+(\d+)/.exec(await child.stdout.text())?.[1] ?? ""
  expect(Number.parseInt(flags, 8) & 0o4000).toBe(0)
})

test("--json gives the buffered reply and still forwards the exit code", async () => {
  const ran = await bhatti(["exec", "--json", "dev", "exit", "3"], { daemon })
  expect(JSON.parse(ran.stdout)).toEqual({
    exit_code: 3,
    signal: null,
    timed_out: false,
    reason: "exited",
    by: null,
    detail: null,
    stdout: "",
    stderr: "",
    truncated: false,
  })
  expect(ran.exitCode).toBe(3)
  const fed = await bhatti(["exec", "--json", "-i", "dev", "cat"], { daemon, stdin: "text" })
  expect(JSON.parse(fed.stdout)).toMatchObject({ stdout: "text" })
})

test("an interrupt ends a command with --json at once", async () => {
  const before = daemon.host.processes.length
  const child = start(["--json", "dev", "sleep"])
  await until("the command runs", () => daemon.host.processes.length > before)
  const { ended } = daemon.lastProcess
  child.kill("SIGINT")
  expect(await ended).toMatchObject({ signal: "KILL" })
  expect(await child.exited).toBe(130)
})

test("an interrupt is passed on, and the command's own exit code comes back", async () => {
  const child = start(["dev", "polite"])
  const reader = child.stdout.getReader()
  await reader.read()
  child.kill("SIGINT")
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("cleaning up\n")
  expect(await child.exited).toBe(7)
  expect(daemon.lastExec.signals).toEqual(["INT"])
})

test("SIGTERM is passed on", async () => {
  const child = start(["dev", "ready"])
  await child.stdout.getReader().read()
  child.kill("SIGTERM")
  expect(await child.exited).toBe(143)
  expect(daemon.lastExec.signals).toEqual(["TERM"])
})

test("an interrupt while the sandbox wakes ends at once, and the daemon sees us gone", async () => {
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    await daemon.call("POST", "/sandboxes/dev/stop")
    const waking = daemon.host.hold("restore")
    const child = start(["dev", "sleep"])
    await waking.reached
    const { lastExec } = daemon
    child.kill(signal)
    expect(await child.exited).toBe(exitCode)
    await until("the daemon to see us gone", () => lastExec.isClosed)
    expect(lastExec.signals).toEqual(["KILL"])
    waking.release()
    await daemon.call("POST", "/sandboxes/dev/start")
  }
})

test("a second interrupt kills", async () => {
  const child = start(["dev", "stubborn"])
  await child.stdout.getReader().read()
  child.kill("SIGINT")
  await until("the first interrupt", () => daemon.lastExec.signals.length === 1)
  child.kill("SIGINT")
  expect(await child.exited).toBe(130)
  expect(daemon.lastExec.signals).toEqual(["INT", "KILL"])
})

test("a whole line as one word: the hint is a shell", async () => {
  const ran = await bhatti(["exec", "dev", "ls -la /"], { daemon })
  expect(ran.stderr).toBe(
    'bhatti: no program named "ls -la /" in the sandbox\n  it is taken as one word; write its words one by one, or: sh -c "..."\n',
  )
  expect(ran.exitCode).toBe(127)
  expect((await bhatti(["exec", "dev", "nonsense"], { daemon })).stderr).not.toContain("one word")
})

test("a sandbox that is stopped or destroyed while its command runs: that is what is said", async () => {
  const said = (fate: string, more = "") =>
    `bhatti: the sandbox "one" was ${fate} while the command ran\n${more}`
  const goesOn = "  the command goes on when the sandbox is next used, for 60 s without its client\n"
  await daemon.sandbox("one")
  // The command's end is told before the state in which the sandbox is afterwards is there.
  for (const [step, method, path, told] of [
    [undefined, "POST", "/sandboxes/one/stop", said("stopped", goesOn)],
    ["save", "POST", "/sandboxes/one/stop", said("stopped", goesOn)],
    ["kill", "DELETE", "/sandboxes/one", said("destroyed")],
    [undefined, "DELETE", "/sandboxes/one", said("destroyed")],
  ] as const) {
    if (!(await daemon.names()).includes("one")) await daemon.sandbox("one")
    const child = start(["one", "ready"])
    await child.stdout.getReader().read()
    const held = step && daemon.host.hold(step)
    const done = daemon.call(method, path)
    expect(await child.stderr.text()).toBe(told)
    expect(await child.exited).toBe(125)
    held?.release()
    await done
  }
  const lost = await bhatti(["exec", "dev", "refuse", "unavailable", "x"], { daemon })
  expect(lost).toEqual({ stdout: "", stderr: "bhatti: cannot run x\n", exitCode: 125 })
})
