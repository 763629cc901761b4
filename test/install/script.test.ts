/**
 * The script that a daemon serves at /install, run by the shells that people have, as a person runs it: piped from
 * curl. The program that it installs here is a small one that says how it was called; test/e2e/setup.vm.test.ts
 * installs the real one.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { HostDownloads } from "../../src/downloads.ts"
import { makeAuthority } from "../support/authority.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

const shells = [["dash"], ["bash"], ["busybox", "sh"], ["bash", "--posix"], ["zsh"]].filter(
  ([name = ""]) => Bun.which(name) !== null,
)
const tools = [
  ..."uname mktemp chmod mv mkdir rm gzip sha256sum cat id sed sort tr grep readlink cp bash tar".split(" "),
  "sh",
]
const isRoot = process.getuid?.() === 0
const nobody = 65_534

let home = ""
let own: HttpApp
beforeEach(async () => {
  // The installing user has no rights here, and passes through it.
  home = mkdtempSync(join(tmpdir(), "bhatti-install-"))
  chmodSync(home, 0o755)
  mkdirSync(join(home, "person"))
  if (isRoot) Bun.spawnSync(["chown", `${nobody}:${nobody}`, join(home, "person")])
  mkdirSync(join(home, "clients"))
  for (const platform of ["linux-x64", "darwin-arm64", "linux-arm64"])
    addClient(platform, program(platform, "1"))
  own = await openHttpApp({
    downloads: new HostDownloads({ directory: join(home, "clients"), program: undefined }),
  })
})
afterEach(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

/** It writes down what it is told. `list` works once setup has run. */
function program(platform: string, version: string): string {
  return `#!/bin/sh
# ${platform}
case $1 in
version) echo "bhatti v${version}"; echo "api: none" ;;
list) [ -e "$HOME/was-set-up" ] ;;
setup) { echo "$* url=$BHATTI_URL"; cat; } >"$HOME/was-set-up" ;;
esac
`
}

const sha256 = (bytes: Uint8Array | string) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex")

function addClient(platform: string, text: string): void {
  const packed = Bun.gzipSync(new TextEncoder().encode(text))
  const name = `bhatti-${platform}`
  const sums = join(home, "clients/SHA256SUMS")
  const others = existsSync(sums)
    ? readFileSync(sums, "utf8")
        .split("\n")
        .filter((line) => line !== "" && !/-(\w+-\w+)(\.gz)?$/.exec(line)?.[1]?.startsWith(platform))
    : []
  writeFileSync(join(home, "clients", `${name}.gz`), packed)
  writeFileSync(
    sums,
    `${[...others, `${sha256(text)}  ${name}`, `${sha256(packed)}  ${name}.gz`].join("\n")}\n`,
  )
}

type Options = {
  shell?: readonly string[]
  args?: string[]
  env?: Record<string, string>
  /** Programs that stand before the system's; with `isAlone` there are no others. */
  bin?: string
  isAlone?: boolean
  fetch?: string
  url?: string
  cwd?: string
}

/** As somebody without rights, without a terminal: `curl -fsSL URL/install | sh -s -- ARGS`. */
async function install(options: Options = {}) {
  const {
    shell = ["dash"],
    args = [],
    env = {},
    bin,
    isAlone,
    fetch = "curl -fsSL",
    url = own.url,
    cwd = "/",
  } = options
  const run = `${fetch} "$URL/install" | ${shell.join(" ")} -s -- "$@"`
  const person = isRoot ? ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--"] : []
  const path = [...(bin === undefined ? [] : [bin]), ...(isAlone ? [] : [process.env["PATH"] ?? ""])].join(
    ":",
  )
  const outer = Bun.which("bash") ?? "bash"
  const command = `export PATH="$TEST_PATH"; ${run}`
  const child = Bun.spawn(
    ["setsid", "-w", ...person, outer, "-o", "pipefail", "-c", command, "bash", ...args],
    {
      env: {
        ...{ PATH: process.env["PATH"] ?? "", TEST_PATH: path, URL: url, HOME: join(home, "person") },
        ...{ TMPDIR: join(home, "person"), ...env },
      },
      cwd,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ])
  return { stdout, stderr, exitCode }
}

const placed = () => join(home, "person/.local/bin/bhatti")

/** A folder of programs that the script finds before all others, or alone. */
function makeBin(own: Record<string, string>, linked: readonly string[] = []): string {
  const bin = mkdtempSync(join(home, "bin-"))
  chmodSync(bin, 0o755)
  for (const name of linked) symlinkSync(Bun.which(name) ?? name, join(bin, name))
  for (const [name, text] of Object.entries(own)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(bin, name), 0o755)
  }
  return bin
}

/** At a terminal of its own. */
function atTerminal(command: string) {
  let screen = ""
  const child = Bun.spawn(["sh", "-c", command], {
    env: { PATH: process.env["PATH"] ?? "", HOME: join(home, "person"), TERM: "xterm" },
    terminal: {
      data: (_, bytes) => {
        screen += new TextDecoder().decode(bytes)
      },
    },
  })
  return { child, screen: () => screen }
}

test("in every shell it installs, says where, and what is next; again it has nothing to do; then it updates", async () => {
  for (const shell of shells) {
    addClient("linux-x64", program("linux-x64", "1"))
    const ran = await install({ shell })
    expect([shell, ran.stderr, ran.exitCode]).toEqual([shell, "", 0])
    expect(ran.stdout).toContain(`bhatti v1 is installed: ${placed()}\n`)
    expect(ran.stdout).toContain("checksum is right: the file is whole\n")
    expect(ran.stdout).toContain(
      `is not in your PATH; add this line to ~/.profile:\n  export PATH="${home}/person/.local/bin:$PATH"`,
    )
    expect(ran.stdout).toContain(`next: ${placed()} setup --url ${own.url} --token KEY`)
    expect(statSync(placed()).mode & 0o777).toBe(0o755)

    const again = await install({ shell })
    expect([again.stderr, again.exitCode]).toEqual(["", 0])
    expect(again.stdout).toContain(`${placed()} is up to date\n`)
    expect(again.stdout).not.toContain("fetch ")

    addClient("linux-x64", program("linux-x64", "2"))
    expect((await install({ shell })).stdout).toContain(`bhatti v2 is updated: ${placed()}\n`)
    expect(readdirSync(join(home, "person/.local/bin"))).toEqual(["bhatti"])
    expect(readdirSync(join(home, "person"))).toEqual([".local"])
    rmSync(join(home, "person/.local"), { recursive: true })
  }
}, 60_000)

test("address and key of the environment are saved without a question, and the key is no word of a command", async () => {
  const ran = await install({ env: { BHATTI_TOKEN: "bht_secret" } })
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
  const saved = readFileSync(join(home, "person/was-set-up"), "utf8")
  expect(saved).toBe(`setup url=\n${own.url}\nbht_secret\n`)
  expect((await install()).stdout).toContain("your settings work and stay")
  const elsewhere = await install({ env: { BHATTI_TOKEN: "bht_secret", BHATTI_URL: "http://other:1" } })
  expect(elsewhere.exitCode).toBe(0)
  expect(readFileSync(join(home, "person/was-set-up"), "utf8")).toContain("\nhttp://other:1\nbht_secret\n")
})

test("over TLS with an authority of one's own, BHATTI_CA is trusted by the script and by what it sets up", async () => {
  const { caFile } = makeAuthority(home)
  await using secure = await openHttpApp({
    downloads: new HostDownloads({ directory: join(home, "clients"), program: undefined }),
    tls: { certPath: join(home, "own.pem"), keyPath: join(home, "own.key") },
  })
  const fetch = `curl -fsSL --cacert ${caFile}`
  const untrusted = await install({ url: secure.url, fetch, env: { BHATTI_TOKEN: "bht_secret" } })
  expect([untrusted.exitCode, untrusted.stderr]).toEqual([
    1,
    expect.stringContaining("cannot fetch https://127"),
  ])
  const env = { BHATTI_TOKEN: "bht_secret", BHATTI_CA: caFile }
  const ran = await install({ url: secure.url, fetch, env })
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
  expect(ran.stdout).toContain("the file is whole; TLS says whom it came from\n")
  const saved = readFileSync(join(home, "person/was-set-up"), "utf8")
  expect(saved).toBe(`setup --ca ${caFile} url=\n${secure.url}\nbht_secret\n`)
})

test("https never leads to plain HTTP: a redirect there is not followed, with curl or with GNU wget", async () => {
  const { caFile, cert, key } = makeAuthority(home)
  using redirecting = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls: { cert, key },
    fetch: (request) => Response.redirect(`${own.url}/install${new URL(request.url).pathname}`),
  })
  const args = ["--from", `https://127.0.0.1:${redirecting.port}`, "--no-setup"]
  const bins = [undefined, ...(Bun.which("wget") ? [makeBin({}, [...tools, "wget"])] : [])]
  for (const bin of bins) {
    const alone = bin === undefined ? {} : { bin, isAlone: true, shell: ["sh"], fetch: "wget -qO-" }
    const ran = await install({ ...alone, args, env: { BHATTI_CA: caFile } })
    expect([ran.exitCode, ran.stderr]).toEqual([1, expect.stringContaining("cannot fetch https://127")])
    expect(existsSync(placed())).toBe(false)
  }
})

test("--dir may end with slashes or be relative, and --url is the address of files and setup", async () => {
  const bin = makeBin({})
  const person = join(home, "person")
  for (const directory of [`${person}/a//`, "person/b/", "./person/c"]) {
    const ran = await install({ args: ["--dir", directory], cwd: home })
    expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
    const clean = join(home, directory.replace(home, "")).replace(/\/+$/, "")
    expect(ran.stdout).toContain(`is installed: ${clean}/bhatti\n`)
    expect(ran.stdout).toContain(`export PATH="${clean}:$PATH"`)
  }
  const ran = await install({ args: ["--url", `${own.url}/`], bin })
  expect(ran.stdout).toContain(`setup --url ${own.url} --token KEY`)
  const wrong = await install({ args: ["--url", "http://127.0.0.1:1"], bin })
  expect([wrong.exitCode, wrong.stderr]).toEqual([
    1,
    expect.stringContaining("cannot fetch http://127.0.0.1:1/install/SHA256SUMS"),
  ])
})

test("at a terminal it asks, though standard input is the script", async () => {
  const { child, screen } = atTerminal(`curl -fsSL ${own.url}/install | sh -s -- --dir ${home}/person/bin`)
  await until("it asks", () => existsSync(join(home, "person/was-set-up")))
  child.terminal?.write("typed\n\x04")
  expect([await child.exited, screen()]).toEqual([0, expect.stringContaining("bhatti v1 is installed")])
  expect(readFileSync(join(home, "person/was-set-up"), "utf8")).toBe(`setup url=${own.url}\ntyped\n`)
})

test("without curl it takes wget, GNU's or BusyBox's, and without both it says so", async () => {
  const bins = [
    ...(Bun.which("wget") ? [{ bin: makeBin({}, [...tools, "wget"]), fetch: "wget -qO-" }] : []),
    ...(Bun.which("busybox")
      ? [{ bin: makeBin({ wget: 'exec busybox wget "$@"' }, [...tools, "busybox"]), fetch: "wget -qO-" }]
      : []),
  ]
  expect(bins.length).toBeGreaterThan(0)
  for (const { bin, fetch } of bins) {
    const ran = await install({ bin, fetch, isAlone: true, shell: ["sh"] })
    expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
    expect(ran.stdout).toContain("bhatti v1 is")
    rmSync(join(home, "person/.local"), { recursive: true })
  }
  const none = makeBin({ first: `exec ${Bun.which("curl")} "$@"` }, tools)
  const ran = await install({ bin: none, fetch: "first -fsSL", isAlone: true, shell: ["sh"] })
  expect([ran.stdout, ran.stderr, ran.exitCode]).toEqual([
    "",
    "bhatti: this needs curl or wget, and neither is here\n",
    1,
  ])
})

test("it fetches what fits the machine, and says what to do where that is not there", async () => {
  const machine = (system: string, processor: string, more: Record<string, string> = {}) =>
    makeBin({ uname: `case $1 in -s) echo ${system} ;; -m) echo ${processor} ;; esac`, ...more })
  const sha = 'exec sha256sum "$@"'
  for (const [bin, platform] of [
    [machine("Darwin", "arm64", { shasum: `shift 2; ${sha}` }), "darwin-arm64"],
    [machine("Darwin", "x86_64", { sysctl: "echo 1" }), "darwin-arm64"],
  ] as const) {
    const ran = await install({ bin })
    expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
    expect(readFileSync(placed(), "utf8")).toContain(`# ${platform}\n`)
    rmSync(placed())
  }
  for (const [bin, told] of [
    [
      machine("Darwin", "x86_64", { sysctl: "echo 0" }),
      "has no command line for darwin-x64; it has: darwin-arm64 linux-arm64 linux-x64\n",
    ],
    [machine("FreeBSD", "amd64"), "there is no bhatti for FreeBSD\n  it runs on Linux and macOS\n"],
    [machine("Linux", "riscv64"), "there is no bhatti for riscv64\n  it runs on x86-64 and arm64\n"],
  ] as const) {
    const ran = await install({ bin })
    expect([ran.exitCode, ran.stdout]).toEqual([1, ""])
    expect(ran.stderr).toContain(told)
  }
  expect((await install({ bin: machine("Darwin", "x86_64", { sysctl: "echo 0" }) })).stderr).toContain(
    "install.sh --clients DIR",
  )
  expect(existsSync(placed())).toBe(false)
})

test("a damaged file, a cut one and one that does not run here are never put in place", async () => {
  const file = join(home, "clients/bhatti-linux-x64.gz")
  const whole = readFileSync(file)
  expect((await install()).exitCode).toBe(0)
  const before = readFileSync(placed(), "utf8")
  addClient("linux-x64", program("linux-x64", "2"))
  const next = readFileSync(file)
  for (const bytes of [next.subarray(0, 100), Buffer.from([...next].reverse()), whole]) {
    writeFileSync(file, bytes)
    const ran = await install()
    expect([ran.exitCode, ran.stderr]).toEqual([
      1,
      expect.stringContaining("bhatti-linux-x64.gz is damaged: its checksum is not"),
    ])
  }
  addClient("linux-x64", "#!/bin/sh\necho cannot >&2; exit 1\n")
  const wrong = await install()
  expect([wrong.exitCode, wrong.stderr]).toEqual([
    1,
    "bhatti: what was fetched does not run on this machine: cannot\n",
  ])
  expect(readFileSync(placed(), "utf8")).toBe(before)
  expect(readdirSync(join(home, "person/.local/bin"))).toEqual(["bhatti"])
})

test("half of the script does nothing", async () => {
  const text = await (await fetch(`${own.url}/install`)).text()
  for (const part of [0.3, 0.6, 0.9, 0.999]) {
    const half = text.slice(0, text.length * part)
    const child = Bun.spawnSync(["dash", "-s"], {
      stdin: new TextEncoder().encode(half),
      env: { PATH: process.env["PATH"] ?? "", HOME: join(home, "person") },
    })
    expect(child.stdout.toString()).toBe("")
    expect(existsSync(placed())).toBe(false)
  }
})

test("a server's program is never overwritten by the client", async () => {
  const directory = join(home, "person/server")
  mkdirSync(directory)
  // A shell whose first argument is a script called serve.
  copyFileSync(Bun.which("dash") ?? "", join(directory, "bhatti"))
  writeFileSync(join(directory, "serve"), "read line\n")
  if (isRoot) Bun.spawnSync(["chown", "-R", `${nobody}:${nobody}`, directory])
  const person = isRoot ? ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups", "--"] : []
  const server = Bun.spawn([...person, join(directory, "bhatti"), "serve", "--data-dir", "x"], {
    cwd: directory,
    stdin: "pipe",
  })
  try {
    await until("it runs", () =>
      readFileSync(`/proc/${server.pid}/cmdline`, "utf8").includes("/bhatti\0serve"),
    )
    const size = statSync(join(directory, "bhatti")).size
    const ran = await install({ args: ["--dir", directory, "--no-setup"] })
    expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
    expect(ran.stdout).toBe(
      `${directory}/bhatti is the server's, and the command line too: nothing to install (the server's install.sh updates it)\n`,
    )
    expect(statSync(join(directory, "bhatti")).size).toBe(size)
    mkdirSync(join(home, "person/linked"))
    symlinkSync(join(directory, "bhatti"), join(home, "person/linked/bhatti"))
    const linked = await install({ args: ["--dir", `${home}/person/linked/`, "--no-setup"] })
    expect(linked.stdout).toContain("is the server's, and the command line too")
  } finally {
    server.stdin.end()
    await server.exited
  }
})

test("on Linux it offers the server where there is one, and runs what is in its archive", async () => {
  const made = join(home, "bhatti-server")
  mkdirSync(made)
  writeFileSync(join(made, "install.sh"), 'echo "server installed by $(id -u)"\n')
  const name = "bhatti-server-linux-x64.tar.gz"
  const archive = join(home, "clients", name)
  expect(Bun.spawnSync(["tar", "-czf", archive, "-C", home, "bhatti-server"]).exitCode).toBe(0)
  writeFileSync(join(home, "clients/SHA256SUMS"), `${sha256(readFileSync(archive))}  ${name}\n`, {
    flag: "a",
  })

  const bin = makeBin({ sudo: 'echo "as root: $1 $(basename "$2")"' })
  const asked = await install({ args: ["--server"], bin })
  expect([asked.stderr, asked.exitCode]).toEqual(["", 0])
  if (isRoot) expect(asked.stdout).toContain("as root: bash install.sh\n")
  expect((await install()).stdout).toContain("bhatti v1 is installed")

  for (const [answer, told] of [
    ["2", "server installed by "],
    ["", "bhatti v1 is installed"],
    ["3", '"3" is neither 1 nor 2'],
  ] as const) {
    const { child, screen } = atTerminal(
      `curl -fsSL ${own.url}/install | { echo 'id() { echo 0; }'; cat; } | sh -s -- --no-setup --dir ${home}/person/bin`,
    )
    await until("it asks", () => screen().includes("Which one? [1]"))
    child.terminal?.write(`${answer}\n`)
    await child.exited
    expect(screen()).toContain(told)
  }
}, 30_000)
