/** Completion: the candidates, and the scripts in the shells that are at hand. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "@bhatti/sdk/client"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"

let daemon: Daemon
let directory = ""
beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev", { init: "serve" })
  await daemon.sandbox("demo")
  await daemon.call("POST", "/secrets", { name: "API_KEY", value: "x" })
  const shell = connect({ url: daemon.url, token: daemon.key }).shellStream("dev")
  await shell.session
  shell.close()
  directory = mkdtempSync(join(tmpdir(), "bhatti-completion-"))
  const quoted = program.map((word) => `'${word}'`).join(" ")
  writeFileSync(join(directory, "bhatti"), `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o755 })
})
afterAll(async () => {
  rmSync(directory, { recursive: true })
  await daemon[Symbol.asyncDispose]()
})

async function candidates(...words: string[]): Promise<string[]> {
  const { stdout, stderr, exitCode } = await bhatti(["__complete", "--", ...words], { daemon })
  expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 })
  return stdout.split("\n").filter((line) => line !== "")
}

test.concurrent("commands, their second words, options, and what only the daemon knows", async () => {
  expect(await candidates("ex")).toEqual(["exec"])
  expect(await candidates("se")).toEqual(["service", "secret", "setup", "serve"])
  expect(await candidates("secret", "")).toEqual(["set", "list", "delete"])
  expect(await candidates("exec", "d")).toEqual(["dev", "demo"])
  expect(await candidates("exec", "--ti")).toEqual(["--timeout"])
  expect(await candidates("destroy", "dev", "de")).toEqual(["dev", "demo"])
  expect(await candidates("--url", daemon.url, "inspect", "de")).toEqual(["dev", "demo"])
  expect(await candidates("shell", "dev", "")).toEqual(["init", "s2"])
  expect(await candidates("kill", "dev", "s2", "--signal", "T")).toEqual(["TERM"])
  expect(await candidates("secret", "delete", "A")).toEqual(["API_KEY"])
  expect(await candidates("create", "--secret", "")).toEqual(["API_KEY"])
  expect(await candidates("cp", "de")).toEqual(["dev:", "demo:"])
  expect(await candidates("completion", "z")).toEqual(["zsh"])
  expect(await candidates("edit", "--keep-hot", "de")).toEqual(["dev", "demo"])
  expect(await candidates("edit", "--keep-hot", "off", "de")).toEqual(["dev", "demo"])
})

test.concurrent("the daemon that the line names is asked, and no other", async () => {
  const { url, key } = daemon
  for (const given of [
    ["--url", url, "--token", key, "inspect", "de"],
    [`--url=${url}`, `--token=${key}`, "inspect", "de"],
    ["inspect", "--url", url, "--token", key, "de"],
  ]) {
    const ran = await bhatti(["__complete", "--", ...given], { env: { BHATTI_URL: "http://127.0.0.1:9" } })
    expect(ran).toEqual({ stdout: "dev\ndemo\n", stderr: "", exitCode: 0 })
  }
  expect(await candidates("--url", "http://127.0.0.1:9", "inspect", "de")).toEqual([])
})

test.concurrent("nothing where nothing fits, and nothing of the guest's own command", async () => {
  for (const words of [
    ["frobnicate", ""],
    ["exec", "dev", "ls", "-"],
    ["exec", "dev", "--", "l"],
    ["create", "--name", ""],
  ])
    expect(await candidates(...words)).toEqual([])
})

test("no daemon, a wrong key, a daemon that does not answer: silence, soon", async () => {
  for (const env of [{ BHATTI_URL: "http://127.0.0.1:9" }, { BHATTI_URL: daemon.url, BHATTI_TOKEN: "wrong" }])
    expect(await bhatti(["__complete", "--", "exec", ""], { env })).toEqual({
      stdout: "",
      stderr: "",
      exitCode: 0,
    })
  using silent = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Promise(() => {}) })
  const startMs = performance.now()
  const url = `http://127.0.0.1:${silent.port}`
  const ran = await bhatti(["__complete", "--", "exec", "d"], { daemon: { url, key: daemon.key } })
  expect(ran).toEqual({ stdout: "", stderr: "", exitCode: 0 })
  expect(performance.now() - startMs).toBeLessThan(2000)
})

test.concurrent("an unknown shell is wrong usage", async () => {
  expect(await bhatti(["completion", "tcsh"])).toMatchObject({ stdout: "", exitCode: 2 })
})

function shellEnvironment(): Record<string, string> {
  return { ...environment(daemon), PATH: `${directory}:${process.env["PATH"]}` }
}

async function inBash(line: string): Promise<string[]> {
  const script = `
    source <(bhatti completion bash)
    COMP_LINE=$1 COMP_POINT=\${#1}
    read -ra COMP_WORDS <<<"\${1//:/ : }"
    [[ $1 = *[[:space:]:] ]] && COMP_WORDS+=("")
    COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
    compopt() { :; }
    _bhatti
    printf '%s\\n' "\${COMPREPLY[@]}"`
  const child = Bun.spawn(["bash", "-c", script, "bash", line], {
    env: shellEnvironment(),
    cwd: directory,
    stdout: "pipe",
    stderr: "pipe",
  })
  expect(await child.stderr.text()).toBe("")
  return (await child.stdout.text()).split("\n").filter((one) => one !== "")
}

test.concurrent.if(Bun.which("bash") !== null)("bash", async () => {
  expect(await inBash("bhatti exec d")).toEqual(["dev", "demo"])
  expect(await inBash("bhatti secret ")).toEqual(["set", "list", "delete"])
  expect(await inBash("bhatti cp de")).toEqual(["dev:", "demo:"])
  expect(await inBash("bhatti cp bha")).toEqual(["bhatti"])
  expect(await inBash("bhatti inspect bha")).toEqual([])
})

test.concurrent.if(Bun.which("fish") !== null)("fish", async () => {
  const ask = async (line: string) => {
    const script = 'bhatti completion fish | source; complete -C "$argv"'
    const child = Bun.spawn(["fish", "--no-config", "-c", script, line], {
      env: { ...shellEnvironment(), HOME: directory },
      cwd: directory,
      stdout: "pipe",
      stderr: "pipe",
    })
    expect(await child.stderr.text()).toBe("")
    return (await child.stdout.text()).split("\n").filter((one) => one !== "")
  }
  expect((await ask("bhatti exec d")).sort()).toEqual(["demo", "dev"])
  expect((await ask("bhatti secret ")).sort()).toEqual(["delete", "list", "set"])
  expect(await ask("bhatti cp bha")).toContain("bhatti")
  expect(await ask("bhatti inspect bha")).toEqual([])
})

test.concurrent.if(Bun.which("zsh") !== null)(
  "zsh",
  async () => {
    let screen = ""
    const child = Bun.spawn(["zsh", "-f"], {
      env: { ...shellEnvironment(), HOME: directory, PS1: "ready> " },
      cwd: directory,
      terminal: {
        data: (_, bytes) => {
          screen += new TextDecoder().decode(bytes)
        },
      },
    })
    const type = (text: string) => child.terminal?.write(text)
    await until("the shell", () => screen.includes("ready> "))
    type('autoload -Uz compinit; compinit -D; source <(bhatti completion zsh); echo "set""up"\n')
    await until("the completion's set-up", () => screen.includes("setup"))
    type("bhatti inspect dem\t")
    await until("a sandbox's name", () => screen.includes("inspect demo"))
    type("\x15bhatti cp dem\t")
    await until("a place in a sandbox", () => screen.replaceAll("\x07", "").includes("cp demo:"))
    type("\x15bhatti inspect bha\t!")
    await until("no file where none belongs", () => screen.replaceAll("\x07", "").includes("inspect bha!"))
    type("\x15bhatti file write dev x bha\t!")
    await until("a file where one may stand", () => screen.replaceAll("\x07", "").includes("x bhatti"))
    child.kill("SIGKILL")
    await child.exited
  },
  30_000,
)
