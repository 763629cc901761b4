/** From nothing to a first command with `bhatti setup`, and what the doctor says, against a real daemon. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { KernelManifest, kernelHash } from "../../src/image/manifest.ts"
import { binary, cacheDir, type Installation, install, until } from "../support/installation.ts"
import { machineOf } from "../support/requests.ts"
import { Tmux, tmuxIsThere } from "../support/tmux.ts"

let own: Installation
let home = ""
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "bhatti-setup-"))
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
}, 60_000)

/** A person's command line: no settings but those of its own home. */
function atHome(...args: string[]) {
  return own.bhatti(args, { env: { HOME: home, BHATTI_URL: "", BHATTI_TOKEN: "" } })
}

test("setup, then it just works; file wins over environment, option over file", async () => {
  expect((await atHome("list")).exitCode).toBe(1)
  const wrong = await atHome("setup", "--url", own.url, "--token", `bht_${"0".repeat(64)}`)
  expect(wrong.exitCode).toBe(1)
  expect(wrong.stderr).toContain("nothing was saved")
  expect((await atHome("setup", "--url", own.url, "--token", own.key)).exitCode).toBe(0)
  expect(statSync(join(home, ".bhatti/config.yaml")).mode & 0o777).toBe(0o600)
  expect((await atHome("list", "--json")).stdout).toBe("[]\n")
  const misled = { HOME: home, BHATTI_URL: "http://127.0.0.1:9", BHATTI_TOKEN: "bht_x" }
  expect((await own.bhatti(["list", "--json"], { env: misled })).stdout).toBe("[]\n")
  expect((await atHome("list", "--url", "http://127.0.0.1:9")).exitCode).toBe(1)
  expect((await atHome("version")).stdout).toMatch(new RegExp(`^bhatti v\\S+\\napi: ${own.url}\\n$`))
})

test("another machine's command line comes from the daemon by its /install, with address and key, and works", async () => {
  const person = join(home, "someone")
  mkdirSync(person)
  chownSync(person, 65_534, 65_534)
  chmodSync(home, 0o755)
  const without = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
  const env = { HOME: person, PATH: "/usr/bin:/bin", TMPDIR: person }
  const run = (command: string, more: Record<string, string> = {}) => {
    const child = Bun.spawnSync(["setsid", "-w", ...without, "sh", "-c", command], {
      env: { ...env, ...more },
      cwd: "/",
    })
    return { stdout: child.stdout.toString(), stderr: child.stderr.toString(), exitCode: child.exitCode }
  }
  const install = `curl -fsSL ${own.url}/install | sh`
  const first = run(install, { BHATTI_TOKEN: own.key })
  expect([first.stderr, first.exitCode]).toEqual(["", 0])
  const placed = join(person, ".local/bin/bhatti")
  expect(first.stdout).toContain(`is installed: ${placed}\n`)
  expect(first.stdout).toContain(`saved to ${person}/.bhatti/config.yaml\n`)
  expect(run(`${placed} list --json`)).toEqual({ stdout: "[]\n", stderr: "", exitCode: 0 })
  const again = run(install)
  expect(again.stdout).toContain(`${placed} is up to date\n`)
  expect(again.stdout).toContain("your settings work and stay")
}, 120_000)

test("init keeps the address that is configured, and says so", async () => {
  const ran = await own.bhatti([
    "init",
    "--data-dir",
    own.dataDir,
    "--cache-dir",
    cacheDir,
    "--listen",
    "127.0.0.1:9",
  ])
  expect(ran.stderr).toContain(
    "config.yaml stays as it is: the daemon answers on 127.0.0.1:8080, not on 127.0.0.1:9\n",
  )
  expect(ran.exitCode).toBe(0)
})

test("after another kernel came, a sandbox boots with the one whose modules its disk holds", async () => {
  expect((await own.bhatti(["create", "--name", "settled"])).exitCode).toBe(0)
  const { id } = JSON.parse((await own.bhatti(["inspect", "settled", "--json"])).stdout) as { id: string }

  const kernels = join(own.dataDir, "kernels")
  const before = readFileSync(join(kernels, "current.json"), "utf8")
  const { hash } = JSON.parse(before) as { hash: string }
  const manifest = KernelManifest.parse(
    JSON.parse(readFileSync(join(kernels, hash, "manifest.json"), "utf8")),
  )
  const other = { ...manifest, version: "6.9.9-other" }
  other.hash = kernelHash(other.files, other.version)
  cpSync(join(kernels, hash), join(kernels, other.hash), { recursive: true })
  rmSync(join(kernels, other.hash, "manifest.json"))
  writeFileSync(join(kernels, other.hash, "manifest.json"), JSON.stringify(other))
  writeFileSync(join(kernels, "current.json"), JSON.stringify({ hash: other.hash }))
  try {
    process.kill(machineOf(own, id), "SIGKILL")
    await until("the list says so", async () => (await own.bhatti(["list"])).stdout.includes("stopped"))
    const booted = await own.bhatti(["exec", "settled", "--", "sudo", "modprobe", "overlay"])
    expect(booted).toMatchObject({ exitCode: 0, stderr: "" })
    const now = machineOf(own, id)
    const opened = readdirSync(`/proc/${now}/fd`).map((fd) => readlinkSync(`/proc/${now}/fd/${fd}`))
    expect(opened).toContain(join(kernels, hash, "initramfs"))
  } finally {
    writeFileSync(join(kernels, "current.json"), before)
    rmSync(join(kernels, other.hash), { recursive: true })
  }
  expect((await own.bhatti(["destroy", "settled"])).exitCode).toBe(0)
}, 180_000)

test("under sudo it is for the person who called it", async () => {
  const person = { name: "bhatti-person", uid: 64_321, home: join(home, "person") }
  mkdirSync(person.home)
  chownSync(person.home, person.uid, person.uid)
  // The directory is to be passed through by somebody else than its owner.
  chmodSync(home, 0o755)
  const passwd = join(home, "passwd")
  const line = `${person.name}:x:${person.uid}:${person.uid}::${person.home}:/bin/sh\n`
  writeFileSync(passwd, readFileSync("/etc/passwd", "utf8") + line)
  const asSudoDoes = {
    ...{ HOME: "/root", SUDO_USER: person.name, SUDO_UID: `${person.uid}`, SUDO_GID: `${person.uid}` },
    ...{ PATH: process.env["PATH"] ?? "", BHATTI: binary, URL: own.url, KEY: own.key, PASSWD: passwd },
  }
  const script = 'mount --bind "$PASSWD" /etc/passwd && exec "$BHATTI" setup --url "$URL" --token "$KEY"'
  const setup = Bun.spawnSync(["unshare", "--mount", "sh", "-c", script], { env: asSudoDoes })
  expect([setup.exitCode, setup.stderr.toString()]).toEqual([0, ""])
  const file = join(person.home, ".bhatti/config.yaml")
  expect(setup.stdout.toString()).toBe(`saved to ${file}\n`)
  for (const [path, mode] of [
    [file, 0o600],
    [join(person.home, ".bhatti"), 0o700],
  ] as const) {
    const { uid, gid, mode: found } = statSync(path)
    expect([path, uid, gid, found & 0o777]).toEqual([path, person.uid, person.uid, mode])
  }
  const without = ["setpriv", `--reuid=${person.uid}`, `--regid=${person.uid}`, "--clear-groups", "--"]
  const list = Bun.spawnSync([...without, binary, "list", "--json"], {
    env: { HOME: person.home, PATH: process.env["PATH"] ?? "" },
    cwd: "/",
  })
  expect([list.stdout.toString(), list.stderr.toString(), list.exitCode]).toEqual(["[]\n", "", 0])
})

test.if(tmuxIsThere)("at a terminal it asks, and the key never shows", async () => {
  const own2 = mkdtempSync(join(tmpdir(), "bhatti-setup-"))
  try {
    await using terminal = await Tmux.open({ env: { HOME: own2 }, cols: 110 })
    await terminal.run(`${binary} setup; echo "co""de=$?"`)
    await terminal.shows("Address of the daemon")
    await terminal.run(own.url)
    await terminal.shows("API key")
    await terminal.run(own.key)
    await terminal.shows("code=0")
    expect(await terminal.screen()).not.toContain(own.key.slice(0, 12))
    expect(readFileSync(join(own2, ".bhatti/config.yaml"), "utf8")).toContain(own.key)
    expect(await terminal.modes()).toContain("echo")
  } finally {
    rmSync(own2, { recursive: true })
  }
})

test("a rotated key stops working at once, and setup takes the new one", async () => {
  const rotated = await own.bhatti(["user", "rotate-key", "tester", "--json", "--data-dir", own.dataDir])
  const { key } = JSON.parse(rotated.stdout)
  const refused = await atHome("list")
  expect(refused.exitCode).toBe(1)
  expect(refused.stderr).toContain(`the key came from ${home}/.bhatti/config.yaml`)
  expect((await atHome("setup", "--url", own.url, "--token", key)).exitCode).toBe(0)
  expect((await atHome("list", "--json")).stdout).toBe("[]\n")
})

test("the doctor finds a running daemon, its data and the host fit", async () => {
  const ran = await atHome("doctor", "--json", "--data-dir", own.dataDir)
  const checks: { area: string; status: string; text: string; fix?: string }[] = JSON.parse(ran.stdout)
  const failed = checks.filter(({ status, area }) => status === "fail" && area !== "port")
  expect(failed).toEqual([])
  for (const area of ["system", "kvm", "qemu-system-x86_64", "data", "space", "daemon", "key", "version"])
    expect(checks.map((one) => one.area)).toContain(area)
  expect(checks).toContainEqual({ area: "data", status: "ok", text: "kernel and image are installed" })
  for (const { status, fix, area } of checks)
    if (status === "fail" || (status === "warn" && area !== "daemon")) expect(fix ?? "").not.toBe("")
})

test("an installation with the subnet of another one does not start, and says whose it is and what to write", async () => {
  await using two = await install()
  await two.stopDaemon("SIGTERM")
  const file = join(two.dataDir, "config.yaml")
  const [line = ""] = /^subnet: .*$/m.exec(readFileSync(join(own.dataDir, "config.yaml"), "utf8")) ?? []
  writeFileSync(file, readFileSync(file, "utf8").replace(/^subnet: .*$/m, line))
  const refused = await two.startDaemon().catch((error: Error) => error.message)
  expect(refused).toContain(", which another installation of bhatti has (bhgw")
  expect(refused).toContain(`, ${own.dataDir})`)
  expect(refused).toMatch(new RegExp(`write this line into ${file}: subnet: 10\\.\\d+\\.0\\.0/16`))
}, 60_000)

describe("completion", () => {
  const programs = () => join(home, "programs")
  beforeAll(async () => {
    expect((await atHome("create", "--name", "completes")).exitCode).toBe(0)
    mkdirSync(programs())
    symlinkSync(binary, join(programs(), "bhatti"))
  }, 120_000)

  test("knows the sandboxes", async () => {
    expect((await atHome("__complete", "--", "exec", "comp")).stdout).toBe("completes\n")
  })

  for (const [shell, start] of [
    ["bash", "bash --norc -i"],
    ["zsh", "zsh -f -i"],
    ["fish", "fish --no-config -i"],
  ] as const) {
    const setUp = {
      bash: "source <(bhatti completion bash)",
      zsh: "autoload -Uz compinit; compinit -D; source <(bhatti completion zsh)",
      fish: "bhatti completion fish | source",
    }[shell]
    test.if(tmuxIsThere && Bun.which(shell) !== null)(
      `finds one at the press of Tab in ${shell}`,
      async () => {
        const env = {
          ...{ HOME: home, BHATTI_URL: own.url, BHATTI_TOKEN: own.key, TERM: "xterm" },
          PATH: `${programs()}:${process.env["PATH"]}`,
        }
        await using terminal = await Tmux.open({ env, cols: 110 })
        await terminal.run(start)
        await terminal.run(`${setUp}; echo set-''up`)
        await terminal.shows("set-up")
        await terminal.type("bhatti inspect comp")
        await until("its name is completed", async () => {
          // A busy host may answer too late for one press.
          await terminal.press("Tab")
          return /bhatti inspect completes\s/.test(await terminal.screen())
        })
        await terminal.press("Enter")
        await terminal.shows("1 cpu, 512 MB memory")
      },
    )
  }
})
