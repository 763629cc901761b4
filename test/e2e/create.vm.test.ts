/** Everything a sandbox can be created with, on real machines. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { type Installation, install, patience, until } from "../support/installation.ts"

let own: Installation
let here = ""
beforeAll(async () => {
  here = mkdtempSync(join(tmpdir(), "bhatti-create-"))
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(here, { recursive: true })
}, 60_000)

const exec = async (sandbox: string, script: string) =>
  (await own.bhatti(["exec", sandbox, "--", "sh", "-c", script])).stdout

async function create(...args: string[]): Promise<{ name: string; cpus: number; memory_mb: number }> {
  const ran = await own.bhatti(["create", "--json", ...args])
  expect(ran.exitCode).toBe(0)
  return JSON.parse(ran.stdout)
}

test("the reference: name, size and environment", async () => {
  const made = await own.bhatti(["create", "--name", "worker", "--env", "API_KEY=sk-abc,NODE_ENV=prod"])
  expect(made.stdout).toMatch(/^sandbox\/worker created \(1 cpu, 512 MB\) in /)
  expect(await exec("worker", "echo $API_KEY $NODE_ENV")).toBe("sk-abc prod\n")
  await create("--name", "lists", "--env", "LIST=a,b,c", "--env", "OTHER=x=y,z", "--env", "EMPTY=")
  expect(await exec("lists", 'echo "$LIST|$OTHER|$EMPTY|$(env | grep -c ^EMPTY=)"')).toBe("a,b,c|x=y,z||1\n")
})

test("without a name it gets one that works", async () => {
  const { name, cpus, memory_mb } = await create()
  expect(name).toMatch(limits.sandboxNamePattern)
  expect([cpus, memory_mb]).toEqual([limits.cpusDefault, limits.memoryMibDefault])
  expect(await exec(name, "hostname")).toBe(`${name}\n`)
})

test("a name twice is refused; --if-not-exists answers with what is there", async () => {
  await create("--name", "once", "--env", "A=1")
  const again = await own.bhatti(["create", "--name", "once"])
  expect(again.exitCode).toBe(1)
  expect(again.stderr).toContain('"once"')
  const tolerant = await own.bhatti(["create", "--name", "once", "--env", "A=2", "--if-not-exists"])
  expect(tolerant).toMatchObject({ exitCode: 0, stdout: "sandbox/once unchanged (already exists)\n" })
  expect(await exec("once", "echo $A")).toBe("1\n")
})

/** Starts a create whose template takes a while, and waits for it in the listing. */
async function startSlowCreate(
  name: string,
  memoryMb: number,
): Promise<Bun.Subprocess<"pipe", "pipe", "pipe">> {
  const child = own.start(["create", "--name", name, "--memory", `${memoryMb}`])
  await until("it is being made", async () => (await listed(name))?.status === "creating")
  return child
}

async function listed(name: string): Promise<{ name: string; status: string } | undefined> {
  const { stdout } = await own.bhatti(["list", "--json"])
  return (JSON.parse(stdout) as { name: string; status: string }[]).find((one) => one.name === name)
}

test("Ctrl-C during a create: the sandbox is destroyed, and the command says so", async () => {
  const before = own.machines().length
  const child = await startSlowCreate("cancelled", 320)
  child.kill("SIGINT")
  const stderr = await new Response(child.stderr).text()
  expect(stderr).toContain("cancelling; Ctrl-C again leaves that to the daemon\n")
  expect(stderr).toContain("sandbox/cancelled destroyed: its create was cancelled\n")
  expect(await new Response(child.stdout).text()).toBe("")
  expect(await child.exited).toBe(130)
  expect(await listed("cancelled")).toBeUndefined()
  expect(own.machines().length).toBe(before)
}, 180_000)

test("a create whose client is killed is undone, and its name is free", async () => {
  const before = own.machines().length
  const child = await startSlowCreate("abandoned", 352)
  child.kill("SIGKILL")
  const goneAfterMs = performance.now()
  await until("it is gone", async () => (await listed("abandoned")) === undefined)
  // It does not wait for the template, which takes seconds.
  expect(performance.now() - goneAfterMs).toBeLessThan(2000 * patience)
  const again = await own.bhatti(["create", "--name", "abandoned", "--memory", "352"])
  expect(again.exitCode).toBe(0)
  expect(await exec("abandoned", "echo here")).toBe("here\n")
  expect(own.machines().length).toBe(before + 1)
}, 180_000)

test("caps of the user hold", async () => {
  const key = await own.addUser("small", ["--max-sandboxes", "1", "--max-cpus", "1", "--max-memory", "512"])
  for (const args of [
    ["--cpus", "2"],
    ["--memory", "1024"],
  ]) {
    const refused = await own.bhatti(["create", ...args], { key })
    expect(refused.exitCode).toBe(2)
    expect(refused.stderr).toMatch(/at most|limit|may have/)
  }
  expect((await own.bhatti(["create", "--name", "only"], { key })).exitCode).toBe(0)
  expect((await own.bhatti(["create"], { key })).stderr).toContain("1")
  const edited = ["user", "edit", "small", "--max-sandboxes", "2", "--data-dir", own.dataDir]
  expect((await own.bhatti(edited)).exitCode).toBe(0)
  expect((await own.bhatti(["create", "--name", "second"], { key })).exitCode).toBe(0)
  expect((await own.bhatti(["destroy", "-y", "only", "second"], { key })).exitCode).toBe(0)
})

test("init runs as the session of that name, with files and environment there", async () => {
  const script = join(here, "init.sh")
  writeFileSync(
    script,
    "set -e\ncat /opt/data/greeting > seen; echo $WHO >> seen; id -un >> seen; tty >> seen\nexec cat\n",
  )
  const greeting = join(here, "greeting.txt")
  writeFileSync(greeting, "hello\n", { mode: 0o640 })
  const file = `${greeting}:/opt/data/greeting`
  await create("--name", "built", "--init", `@${script}`, "--file", file, "--env", "WHO=me")
  await until("the script", async () => (await exec("built", "wc -l < seen")) === "4\n")
  expect(await exec("built", "cat seen")).toMatch(/^hello\nme\nlohar\n\/dev\/pts\/\d+\n$/)
  expect(await exec("built", "stat -c '%a %U' /opt/data/greeting")).toBe("640 lohar\n")
  const [session] = JSON.parse((await own.bhatti(["ps", "built", "--json"])).stdout)
  expect(session).toMatchObject({ name: "init", running: true, attached: false })
})

test("an init script that fails leaves the sandbox, and ps says how it ended", async () => {
  await create("--name", "failed", "--init", "echo no good; exit 3")
  await until("its end", async () => (await own.bhatti(["ps", "failed"])).stdout.includes("exited 3"))
  expect(await exec("failed", "echo alive")).toBe("alive\n")
})

test("labels select", async () => {
  await create("--name", "one", "--label", "team=web,tier=front")
  await create("--name", "two", "--label", "team=web")
  const names = async (label: string) =>
    JSON.parse((await own.bhatti(["list", "--json", "--label", label])).stdout).map(
      (one: { name: string }) => one.name,
    )
  expect(await names("team=web")).toEqual(["one", "two"])
  expect(await names("team=web,tier=front")).toEqual(["one"])
})

test("a larger size takes effect, and waiting for its template is explained", async () => {
  const made = await own.bhatti(["create", "--name", "large", "--cpus", "2", "--memory", "1024"])
  expect(made.stdout).toContain("sandbox/large created (2 cpus, 1 GB)")
  expect(made.stderr).toContain("preparing a template for 2 cpus, 1024 MB, once per size")
  expect(await exec("large", "nproc")).toBe("2\n")
  expect(Number(await exec("large", "free -m | awk '/Mem:/{print $2}'"))).toBeGreaterThan(900)
  const second = await own.bhatti(["create", "--name", "large2", "--cpus", "2", "--memory", "1024"])
  expect(second.stdout).toContain("sandbox/large2 created")
}, 180_000)
