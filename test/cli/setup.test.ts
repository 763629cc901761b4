/** `bhatti setup` and `bhatti doctor` as processes. */

import { afterAll, afterEach, beforeEach, expect, test } from "bun:test"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeAuthority } from "../support/authority.ts"
import { Daemon } from "./daemon.ts"
import { bhatti, program, until } from "./program.ts"

const daemon = await Daemon.start({ about: { version: "9.9.9" } })
afterAll(() => daemon[Symbol.asyncDispose]())

let home = ""
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "bhatti-setup-"))
})
afterEach(() => rmSync(home, { recursive: true }))

function config(): string {
  return join(home, ".bhatti/config.yaml")
}

function setup(args: string[], env: Record<string, string> = {}) {
  return bhatti(["setup", ...args], { env: { HOME: home, ...env } })
}

test("with both options it asks nothing, and the next command works", async () => {
  const ran = await setup(["--url", daemon.url, "--token", daemon.key])
  expect(ran).toEqual({ stdout: `saved to ${config()}\n`, stderr: "", exitCode: 0 })
  expect(statSync(config()).mode & 0o777).toBe(0o600)
  expect(statSync(join(home, ".bhatti")).mode & 0o777).toBe(0o700)
  expect(readFileSync(config(), "utf8")).toBe(`api_url: ${daemon.url}\nauth_token: ${daemon.key}\n`)
  expect((await bhatti(["list", "--json"], { env: { HOME: home } })).stdout).toBe("[]\n")
  const json = await setup(["--url", daemon.url, "--token", daemon.key, "--json"])
  expect(JSON.parse(json.stdout)).toEqual({ api_url: daemon.url, path: config() })
})

test("what else stands in the file is kept, comments too, and it is closed to others", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(config(), "# mine\napi_url: http://old:1 # was\nlisten: 127.0.0.1:1\nauth_token: old\n")
  chmodSync(config(), 0o644)
  await setup(["--url", daemon.url, "--token", daemon.key])
  expect(readFileSync(config(), "utf8")).toBe(
    `# mine\napi_url: ${daemon.url} # was\nlisten: 127.0.0.1:1\nauth_token: ${daemon.key}\n`,
  )
  expect(statSync(config()).mode & 0o777).toBe(0o600)
})

test("a link to a file kept elsewhere stays a link", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(join(home, "dotfile"), "")
  symlinkSync(join(home, "dotfile"), config())
  await setup(["--url", daemon.url, "--token", daemon.key])
  expect(lstatSync(config()).isSymbolicLink()).toBe(true)
  expect(readFileSync(join(home, "dotfile"), "utf8")).toContain(daemon.key)
})

test("a refused key, no daemon, something else there, a bad address: non-zero, and nothing is saved", async () => {
  for (const [url, token, told] of [
    [daemon.url, "bht_wrong", "the API key is not valid; nothing was saved"],
    ["http://127.0.0.1:9", daemon.key, "no bhatti daemon answers at http://127.0.0.1:9; nothing was saved"],
    ["ftp://x", daemon.key, "is not the address of a daemon"],
    [daemon.url, "bad\nkey", "holds characters that no key has"],
  ] as const) {
    const ran = await setup(["--url", url, "--token", token])
    expect(ran.exitCode).toBe(1)
    expect(ran.stderr).toContain(told)
    expect(ran.stderr).not.toContain("bht_wrong")
    expect(existsSync(config())).toBe(false)
  }
})

test("a file that is not ours to edit is left as it is", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(config(), "- a list\n")
  const ran = await setup(["--url", daemon.url, "--token", daemon.key])
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("is not lines of `key: value`")
  expect(readFileSync(config(), "utf8")).toBe("- a list\n")
})

test("BHATTI_CONFIG names the file", async () => {
  const path = join(home, "ci/own.yaml")
  await setup(["--url", daemon.url, "--token", daemon.key], { BHATTI_CONFIG: path })
  expect(readFileSync(path, "utf8")).toContain(daemon.key)
  expect(existsSync(config())).toBe(false)
})

test("without a terminal and without an option nobody is asked", async () => {
  const ran = await setup(["--url", daemon.url])
  expect(ran.exitCode).toBe(2)
  expect(ran.stderr).toBe(
    "bhatti: --token is missing, and there is no terminal to ask for it\n  try: bhatti setup --url URL --token KEY\n",
  )
})

/** `bhatti setup` at a terminal of its own. */
function atTerminal(env: Record<string, string> = {}) {
  let screen = ""
  const child = Bun.spawn([...program, "setup"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home, TERM: "xterm", ...env },
    terminal: {
      data: (_, bytes) => {
        screen += new TextDecoder().decode(bytes)
      },
    },
  })
  return {
    child,
    screen: () => Bun.stripANSI(screen),
    shows: (text: string) => until(text, () => Bun.stripANSI(screen).includes(text)),
    type: (keys: string) => void child.terminal?.write(keys),
  }
}

const saved = (url: string, key = daemon.key) => `api_url: ${url}\nauth_token: ${key}\n`

test("at a terminal what is typed replaces the address that is shown, and the key is not shown", async () => {
  for (const enter of ["\r", "\n"]) {
    rmSync(join(home, ".bhatti"), { recursive: true, force: true })
    const { child, screen, shows, type } = atTerminal()
    await shows("Address of the daemon")
    expect(screen()).toContain("http://localhost:8080")
    type(`${daemon.url}${enter}`)
    await shows("API key")
    type(enter)
    await shows("It is needed.")
    type(`${daemon.key}${enter}`)
    expect(await child.exited).toBe(0)
    expect(screen()).not.toContain("bht_")
    expect(readFileSync(config(), "utf8")).toBe(saved(daemon.url))
  }
})

test("again, Enter keeps the address and its key; another address needs a key of its own", async () => {
  await setup(["--url", daemon.url, "--token", daemon.key])
  const again = atTerminal()
  await again.shows(daemon.url)
  again.type("\r")
  await again.shows("API key (Enter keeps the present one)")
  again.type("\r")
  expect(await again.child.exited).toBe(0)
  expect(readFileSync(config(), "utf8")).toBe(saved(daemon.url))

  await using other = await Daemon.start()
  const moved = atTerminal()
  await moved.shows("Address of the daemon")
  moved.type(`${other.url}\r`)
  await moved.shows("API key")
  expect(moved.screen()).not.toContain("Enter keeps")
  moved.type(`${other.key}\r`)
  expect(await moved.child.exited).toBe(0)
  expect(readFileSync(config(), "utf8")).toBe(saved(other.url, other.key))
})

test("both answers pasted at once, and typed before they are asked for, answer one question each", async () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const { child, screen, shows, type } = atTerminal()
    await shows("Address of the daemon")
    type(`${daemon.url}${end}${daemon.key}${end}`)
    expect(await child.exited).toBe(0)
    expect(screen()).not.toContain("bht_")
    expect(readFileSync(config(), "utf8")).toBe(saved(daemon.url))
    rmSync(join(home, ".bhatti"), { recursive: true })
  }
})

test("Ctrl-C, Ctrl-D and Escape at a question save nothing", async () => {
  for (const key of ["\x03", "\x04", "\x1b"]) {
    const first = atTerminal()
    await first.shows("Address of the daemon")
    first.type(key)
    expect(await first.child.exited).toBe(130)
    expect(first.screen()).toContain("stopped; nothing was changed")
    const second = atTerminal()
    await second.shows("Address of the daemon")
    second.type(`${daemon.url}\r`)
    await second.shows("API key")
    second.type(`abc${key}`)
    expect(await second.child.exited).toBe(130)
    expect(existsSync(config())).toBe(false)
  }
})

test("without a terminal the answers are lines of standard input; an empty one keeps what is there", async () => {
  const answered = (stdin: string, args: string[] = []) =>
    bhatti(["setup", ...args], { env: { HOME: home }, stdin })
  expect(await answered(`${daemon.url}\n${daemon.key}\n`)).toEqual({
    stdout: `saved to ${config()}\n`,
    stderr: "",
    exitCode: 0,
  })
  expect(readFileSync(config(), "utf8")).toBe(saved(daemon.url))
  for (const [stdin, args] of [
    ["\n\n", []],
    [`${daemon.url}\r\n${daemon.key}\r\n`, []],
    [`\n${daemon.key}`, []],
    [daemon.key, ["--url", daemon.url]],
    [`${daemon.url}\n`, ["--token", daemon.key]],
  ] as const)
    expect([stdin, (await answered(stdin, [...args])).exitCode]).toEqual([stdin, 0])
  const elsewhere = await answered("http://127.0.0.1:9\n\n")
  expect([elsewhere.exitCode, elsewhere.stderr]).toEqual([2, expect.stringContaining("--token is missing")])
  expect((await answered("")).stderr).toContain("--url is missing, and there is no terminal to ask for it")
  expect((await answered(`${daemon.url}\nbht_wrong\n`)).exitCode).toBe(1)
  expect(readFileSync(config(), "utf8")).toBe(saved(daemon.url))
})

test("it does not wait for more than it needs", async () => {
  const child = Bun.spawn([...program, "setup"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home },
    stdin: "pipe",
    stdout: "pipe",
  })
  child.stdin.write(`${daemon.url}\n${daemon.key}\n`)
  await child.stdin.flush()
  expect(await child.exited).toBe(0)
  child.stdin.end()
})

test("an authority of one's own: --ca is saved, and holds for requests, streams and every later command", async () => {
  const { caFile } = makeAuthority(home)
  await using secure = await Daemon.start({
    tls: { certPath: join(home, "own.pem"), keyPath: join(home, "own.key") },
    caFile,
  })
  await secure.sandbox("dev")
  const untrusted = await setup(["--url", secure.url, "--token", secure.key])
  expect(untrusted).toEqual({
    stdout: "",
    stderr: expect.stringMatching(
      /the certificate of https:\S+ is not trusted \([A-Z_]+\); nothing was saved\n {2}with an authority of your own: bhatti setup --ca FILE/,
    ),
    exitCode: 1,
  })
  expect(existsSync(config())).toBe(false)

  expect(await setup(["--url", secure.url, "--token", secure.key, "--ca", caFile])).toMatchObject({
    exitCode: 0,
    stderr: "",
  })
  expect(readFileSync(config(), "utf8")).toBe(`${saved(secure.url, secure.key)}ca_file: ${caFile}\n`)
  const run = (args: string[], env: Record<string, string> = {}) =>
    bhatti(args, { env: { HOME: home, ...env } })
  expect((await run(["list", "-q"])).stdout).toBe("dev\n")
  expect((await run(["exec", "dev", "--", "echo", "hi"])).stdout).toBe("hi\n")
  // Again without --ca: it stays.
  expect((await bhatti(["setup"], { env: { HOME: home }, stdin: "\n\n" })).exitCode).toBe(0)
  expect(readFileSync(config(), "utf8")).toContain(`ca_file: ${caFile}\n`)

  // It was for that host: another's certificate is not trusted for it, and the saved path goes.
  const other = secure.url.replace("127.0.0.1", "localhost")
  const elsewhere = await setup(["--url", other, "--token", secure.key])
  expect([elsewhere.exitCode, elsewhere.stderr]).toEqual([1, expect.stringContaining("is not trusted")])
  expect(readFileSync(config(), "utf8")).toContain(`ca_file: ${caFile}\n`)
  const plain = daemon.url.replace("127.0.0.1", "localhost")
  expect((await setup(["--url", plain, "--token", daemon.key])).exitCode).toBe(0)
  expect(readFileSync(config(), "utf8")).toBe(saved(plain))

  rmSync(join(home, ".bhatti"), { recursive: true })
  const env = { BHATTI_URL: secure.url, BHATTI_TOKEN: secure.key }
  expect((await run(["exec", "dev", "--", "echo", "hi"], env)).stderr).toContain("is not trusted")
  expect((await run(["exec", "dev", "--", "echo", "hi"], { ...env, BHATTI_CA: caFile })).stdout).toBe("hi\n")
  expect((await run(["list", "-q", "--ca", caFile], env)).stdout).toBe("dev\n")
  const missing = await run(["list", "--ca", `${caFile}.not`], env)
  expect([missing.exitCode, missing.stderr]).toEqual([
    1,
    expect.stringContaining("from --ca, cannot be read (ENOENT)"),
  ])
  expect((await run(["list", "--ca", config()], env)).exitCode).toBe(1)
  writeFileSync(join(home, "empty.pem"), "nothing\n")
  expect((await run(["list", "--ca", join(home, "empty.pem")], env)).stderr).toContain("holds no certificate")
})

test("a key of the file that nobody reads is told, with what is meant; a daemon's is not", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(config(), `${saved(daemon.url)}listen: 127.0.0.1:1\napi_ulr: x\nnonsense: 1\n`)
  const ran = await bhatti(["list", "-q"], { env: { HOME: home } })
  expect(ran).toEqual({
    stdout: "",
    stderr: `bhatti: ${config()} has an unknown key: api_ulr; did you mean api_url?\nbhatti: ${config()} has an unknown key: nonsense\n`,
    exitCode: 0,
  })
  expect((await bhatti(["list", "--json"], { env: { HOME: home } })).stderr).toBe("")
})

const nobodyHome = readFileSync("/etc/passwd", "utf8")
  .split("\n")
  .find((one) => one.startsWith("nobody:"))
  ?.split(":")[5]
// Only a home that is not there can be made and removed again.
const canBeNobody = process.getuid?.() === 0 && nobodyHome !== undefined && !existsSync(nobodyHome)

test.if(canBeNobody)("under sudo the file is the caller's, in the caller's home", async () => {
  const path = join(nobodyHome ?? "", ".bhatti/config.yaml")
  try {
    const ran = await setup(["--url", daemon.url, "--token", daemon.key], { SUDO_USER: "nobody" })
    expect(ran).toMatchObject({ stderr: "", exitCode: 0 })
    const uid = Number(Bun.spawnSync(["id", "-u", "nobody"]).stdout.toString())
    for (const [made, mode] of [
      [path, 0o600],
      [join(path, ".."), 0o700],
    ] as const) {
      expect(statSync(made).uid).toBe(uid)
      expect(statSync(made).mode & 0o777).toBe(mode)
    }
  } finally {
    rmSync(nobodyHome ?? "", { recursive: true, force: true })
  }
  expect(existsSync(config())).toBe(false)
})

test("the doctor says what is wrong, how to fix it, and exits 1", async () => {
  const dataDir = join(home, "no-data")
  const ran = await bhatti(["doctor", "--data-dir", dataDir], { daemon, env: { HOME: home } })
  expect(ran.exitCode).toBe(1)
  expect(ran.stdout).toContain(`${dataDir} is missing\n      fix: sudo bhatti init --data-dir ${dataDir}`)
  expect(ran.stdout).toMatch(/^ok +daemon +answers at /m)
  expect(ran.stdout).toMatch(/^ok +key +the key from BHATTI_TOKEN is valid$/m)
  expect(ran.stdout).toMatch(/^warn +version +.* here, 9\.9\.9 at the daemon$/m)
  const json = await bhatti(["doctor", "--data-dir", dataDir, "--json"], { daemon, env: { HOME: home } })
  const checks: { area: string; status: string }[] = JSON.parse(json.stdout)
  expect(checks).toContainEqual(expect.objectContaining({ area: "data", status: "fail" }))
})

test("the doctor works without a daemon", async () => {
  const ran = await bhatti(["doctor"], { env: { HOME: home, BHATTI_URL: "http://127.0.0.1:9" } })
  expect(ran.exitCode).toBe(1)
  expect(ran.stdout).toMatch(/^fail +daemon +no bhatti daemon answers at http:\/\/127\.0\.0\.1:9$/m)
})

test("the doctor tells of settings that cannot be read, and still looks at the host", async () => {
  const path = join(home, "broken.yaml")
  writeFileSync(path, "api_url: [\n")
  const ran = await bhatti(["doctor", "--data-dir", home], { env: { HOME: home, BHATTI_CONFIG: path } })
  expect(ran.exitCode).toBe(1)
  expect(ran.stdout).toMatch(/^ok +system /m)
  expect(ran.stdout).toMatch(
    /^fail +settings +the configuration file .*broken\.yaml is not valid YAML\n +fix: correct it/m,
  )
})
