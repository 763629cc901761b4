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
import { FakeDaemon, testKey } from "./fake-daemon.ts"
import { bhatti, program, until } from "./program.ts"

const daemon = new FakeDaemon()
afterAll(() => daemon[Symbol.dispose]())

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
  const ran = await setup(["--url", daemon.url, "--token", testKey])
  expect(ran).toEqual({ stdout: `saved to ${config()}\n`, stderr: "", exitCode: 0 })
  expect(statSync(config()).mode & 0o777).toBe(0o600)
  expect(statSync(join(home, ".bhatti")).mode & 0o777).toBe(0o700)
  expect(readFileSync(config(), "utf8")).toBe(`api_url: ${daemon.url}\nauth_token: ${testKey}\n`)
  expect((await bhatti(["list", "--json"], { env: { HOME: home } })).stdout).toBe("[]\n")
  const json = await setup(["--url", daemon.url, "--token", testKey, "--json"])
  expect(JSON.parse(json.stdout)).toEqual({ api_url: daemon.url, path: config() })
})

test("what else stands in the file is kept, comments too, and it is closed to others", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(config(), "# mine\napi_url: http://old:1 # was\nlisten: 127.0.0.1:1\nauth_token: old\n")
  chmodSync(config(), 0o644)
  await setup(["--url", daemon.url, "--token", testKey])
  expect(readFileSync(config(), "utf8")).toBe(
    `# mine\napi_url: ${daemon.url} # was\nlisten: 127.0.0.1:1\nauth_token: ${testKey}\n`,
  )
  expect(statSync(config()).mode & 0o777).toBe(0o600)
})

test("a link to a file kept elsewhere stays a link", async () => {
  mkdirSync(join(home, ".bhatti"))
  writeFileSync(join(home, "dotfile"), "")
  symlinkSync(join(home, "dotfile"), config())
  await setup(["--url", daemon.url, "--token", testKey])
  expect(lstatSync(config()).isSymbolicLink()).toBe(true)
  expect(readFileSync(join(home, "dotfile"), "utf8")).toContain(testKey)
})

test("a refused key, no daemon, something else there, a bad address: non-zero, and nothing is saved", async () => {
  for (const [url, token, told] of [
    [daemon.url, "bht_wrong", "the API key is not valid; nothing was saved"],
    ["http://127.0.0.1:9", testKey, "no bhatti daemon answers at http://127.0.0.1:9; nothing was saved"],
    ["ftp://x", testKey, "is not the address of a daemon"],
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
  const ran = await setup(["--url", daemon.url, "--token", testKey])
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("is not lines of `key: value`")
  expect(readFileSync(config(), "utf8")).toBe("- a list\n")
})

test("BHATTI_CONFIG names the file", async () => {
  const path = join(home, "ci/own.yaml")
  await setup(["--url", daemon.url, "--token", testKey], { BHATTI_CONFIG: path })
  expect(readFileSync(path, "utf8")).toContain(testKey)
  expect(existsSync(config())).toBe(false)
})

test("without a terminal and without an option nobody is asked", async () => {
  const ran = await setup(["--url", daemon.url])
  expect(ran.exitCode).toBe(2)
  expect(ran.stderr).toBe(
    "bhatti: --token is missing, and nobody can be asked\n  try: bhatti setup --url URL --token KEY\n",
  )
})

test("at a terminal it asks, and the key is not shown", async () => {
  let screen = ""
  const child = Bun.spawn([...program, "setup"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home, TERM: "xterm" },
    terminal: {
      data: (_, bytes) => {
        screen += new TextDecoder().decode(bytes)
      },
    },
  })
  await until("the address's question", () => screen.includes("Address of the daemon"))
  expect(screen).toContain("http://localhost:8080")
  child.terminal?.write("\x15")
  child.terminal?.write(`${daemon.url}\r`)
  await until("the key's question", () => screen.includes("API key"))
  child.terminal?.write(`${testKey}\r`)
  expect(await child.exited).toBe(0)
  expect(screen).not.toContain("bht_")
  expect(readFileSync(config(), "utf8")).toBe(`api_url: ${daemon.url}\nauth_token: ${testKey}\n`)
})

test("Ctrl-C at a question saves nothing", async () => {
  let screen = ""
  const child = Bun.spawn([...program, "setup"], {
    env: { PATH: process.env["PATH"] ?? "", HOME: home, TERM: "xterm" },
    terminal: {
      data: (_, bytes) => {
        screen += new TextDecoder().decode(bytes)
      },
    },
  })
  await until("the question", () => screen.includes("Address of the daemon"))
  child.terminal?.write("\x03")
  expect(await child.exited).toBe(130)
  expect(screen).toContain("stopped; nothing was changed")
  expect(existsSync(config())).toBe(false)
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
    const ran = await setup(["--url", daemon.url, "--token", testKey], { SUDO_USER: "nobody" })
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
