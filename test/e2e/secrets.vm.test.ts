/** Secrets on real machines: where they arrive, and everywhere they must not. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from "node:fs"
import { join } from "node:path"
import { nextExtent } from "../../src/lib/posix.ts"
import { type Installation, install } from "../support/installation.ts"

const value = `sk-${crypto.randomUUID()}`
let own: Installation
beforeAll(async () => {
  own = await install({ config: "log_level: trace\n" })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (sandbox: string, script: string) =>
  (await own.bhatti(["exec", sandbox, "--", "sh", "-c", script])).stdout

test("the reference: set, list, delete", async () => {
  expect((await own.bhatti(["secret", "set", "API_KEY", value])).stdout).toBe("secret/API_KEY set\n")
  const listed = await own.bhatti(["secret", "list"])
  expect(listed.stdout).toMatch(/^NAME +SET\nAPI_KEY /)
  expect((await own.bhatti(["secret", "set", "OTHER"], { stdin: "from stdin\n" })).exitCode).toBe(0)
  expect((await own.bhatti(["secret", "delete", "OTHER"])).stdout).toBe("secret/OTHER deleted\n")
  expect((await own.bhatti(["secret", "delete", "OTHER"])).exitCode).toBe(1)
  for (const args of [
    ["secret", "list", "--json"],
    ["list", "--json"],
  ])
    expect((await own.bhatti(args)).stdout).not.toContain(value)
})

test("a sandbox gets what it was created with, and no other", async () => {
  expect((await own.bhatti(["create", "--name", "with", "--secret", "API_KEY"])).exitCode).toBe(0)
  expect((await own.bhatti(["create", "--name", "without"])).exitCode).toBe(0)
  expect(await exec("with", "echo $API_KEY")).toBe(`${value}\n`)
  expect(await exec("without", "echo $API_KEY")).toBe("\n")
  const missing = await own.bhatti(["create", "--secret", "NOPE"])
  expect(missing.exitCode).toBe(1)
  expect(missing.stderr).toContain("NOPE")
})

/** Values that must be nowhere: the secret, the API key, and those in requests that fail. */
const canaries = () => [value, own.key, wrongKey, typed]
const wrongKey = `bht_${"c0ffee00".repeat(8)}`
const typed = `typed-${crypto.randomUUID()}`

function processesOf(parent: number): number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name))
  const children = pids.filter((pid) => statOf(pid)?.[1] === String(parent)).map(Number)
  return [parent, ...children.flatMap(processesOf)]
}

/** State, parent and so on; nothing of a process that has ended. */
function statOf(pid: string): string[] | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ")
  } catch {
    return undefined
  }
}

/** Disks and memories are large and mostly holes, which are not read. */
function holdsCanary(path: string): boolean {
  const words = canaries().map((canary) => Buffer.from(canary))
  const overlapBytes = Math.max(...words.map(({ length }) => length))
  const buffer = Buffer.alloc(4 * 1024 * 1024)
  const fd = openSync(path, "r")
  try {
    let offset = 0
    for (let extent = nextExtent({ fd, offset }); extent; extent = nextExtent({ fd, offset })) {
      for (let at = extent.start; at < extent.end; at += buffer.length - overlapBytes) {
        const bytes = buffer.subarray(0, readSync(fd, buffer, { position: at }))
        if (words.some((word) => bytes.includes(word))) return true
      }
      offset = extent.end
    }
    return false
  } finally {
    closeSync(fd)
  }
}

function holders(texts: Record<string, string>): string[] {
  return Object.entries(texts).flatMap(([where, text]) =>
    canaries().some((canary) => text.includes(canary)) ? [where] : [],
  )
}

test("secrets and keys are in no answer to a request that fails", async () => {
  const bodies: Record<string, string> = {}
  const ask = async (method: string, path: string, body?: string, key = own.key) => {
    const headers = { authorization: `Bearer ${key}` }
    const answer = await fetch(own.url + path, { method, headers, ...(body !== undefined && { body }) })
    bodies[`${method} ${path} ${answer.status}`] = (await answer.text()) + JSON.stringify([...answer.headers])
    return answer.status
  }
  expect(await ask("GET", "/sandboxes", undefined, wrongKey)).toBe(401)
  expect(await ask("POST", "/secrets", JSON.stringify({ name: "not a name", value: typed }))).toBe(400)
  expect(await ask("POST", "/secrets", `{"name":"A","value":"${typed}"`)).toBe(400)
  expect(await ask("POST", "/secrets", JSON.stringify({ name: "A", value: `${typed}\0` }))).toBe(400)
  expect(await ask("POST", "/secrets", JSON.stringify({ name: "A", value: typed.repeat(2000) }))).toBe(400)
  expect(await ask("POST", "/sandboxes", JSON.stringify({ env: { "not a name": typed } }))).toBe(400)
  expect(await ask("POST", "/sandboxes", JSON.stringify({ env: { A: typed.repeat(2000) } }))).toBe(400)
  const exec = { cmd: ["no-such-program"], env: { A: typed }, stdin: typed }
  expect(await ask("POST", "/sandboxes/with/exec", JSON.stringify(exec))).toBe(400)
  expect(await ask("POST", "/sandboxes/with/exec", JSON.stringify({ ...exec, cwd: "/nowhere" }))).toBe(400)
  const inQuery = await fetch(`${own.url}/sandboxes?token=${own.key}&key=${own.key}`)
  expect(inQuery.status).toBe(401)
  bodies["key in the query"] = await inQuery.text()
  expect(holders(bodies)).toEqual([])
})

test("they are nowhere on the host in the clear: not in the database, the log at its most talkative, or a process", async () => {
  // A sandbox on disk, whose memory holds its own secret, and one that never had it.
  expect((await own.bhatti(["stop", "with"])).exitCode).toBe(0)
  const { id } = JSON.parse((await own.bhatti(["inspect", "with", "--json"])).stdout)
  const found = readdirSync(own.dataDir, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name))
    .filter(holdsCanary)
  const isItsOwn = (path: string) => path.startsWith(`${own.dataDir}/sandboxes/${id}/`)
  expect(found.filter((path) => !isItsOwn(path))).toEqual([])
  // The search would find them.
  expect(found).toContain(`${own.dataDir}/sandboxes/${id}/snapshot/memory`)
  for (const path of found) expect(path).toMatch(/\/(memory|disk\.qcow2)$/)

  expect((await own.bhatti(["exec", "with", "--", "true"])).exitCode).toBe(0)
  expect(own.daemonLog()).toContain('"path":"/secrets"')
  const texts: Record<string, string> = { log: own.daemonLog() }
  for (const pid of [...processesOf(own.daemonPid()), ...own.machines()])
    for (const file of ["cmdline", "environ"])
      texts[`${pid} ${file}`] = readFileSync(`/proc/${pid}/${file}`, "utf8")
  texts["kernel command line"] = await exec("with", "cat /proc/cmdline")
  texts["kernel log"] = await exec("with", "sudo dmesg")
  expect(texts["kernel log"]).not.toBe("")
  for (const args of [["list"], ["inspect", "with"], ["secret", "list"], ["ps", "with"], ["why", "with"]])
    texts[args.join(" ")] = (await own.bhatti([...args, "--json"])).stdout
  expect(holders(texts)).toEqual([])

  expect(readFileSync(join(own.dataDir, "age.key"), "utf8")).toStartWith("AGE-SECRET-KEY-")
  expect(statSync(join(own.dataDir, "age.key")).mode & 0o777).toBe(0o600)
})

test("no process that holds them leaves an image of its memory when it crashes", () => {
  for (const pid of [...processesOf(own.daemonPid()), ...own.machines()]) {
    const [, soft, hard] =
      /Max core file size +(\d+) +(\d+)/.exec(readFileSync(`/proc/${pid}/limits`, "utf8")) ?? []
    expect([Number(soft) <= 1, Number(hard) <= 1]).toEqual([true, true])
  }
})

test("another user has another, and sees neither name nor value", async () => {
  const key = await own.addUser("other")
  expect((await own.bhatti(["secret", "list", "--json"], { key })).stdout).toBe("[]\n")
  expect((await own.bhatti(["create", "--secret", "API_KEY"], { key })).exitCode).toBe(1)
  expect((await own.bhatti(["secret", "delete", "API_KEY"], { key })).exitCode).toBe(1)
  await own.bhatti(["secret", "set", "API_KEY", "theirs"], { key })
  expect((await own.bhatti(["create", "--name", "theirs", "--secret", "API_KEY"], { key })).exitCode).toBe(0)
  const seen = await own.bhatti(["exec", "theirs", "--", "sh", "-c", "echo $API_KEY"], { key })
  expect(seen.stdout).toBe("theirs\n")
  expect((await own.bhatti(["destroy", "-y", "theirs"], { key })).exitCode).toBe(0)
})

test("a changed secret reaches the next sandbox, and a restart of the daemon changes nothing", async () => {
  await own.bhatti(["secret", "set", "API_KEY", "second"])
  await own.stopDaemon("SIGTERM")
  await own.startDaemon()
  expect(await exec("with", "echo $API_KEY")).toBe(`${value}\n`)
  expect((await own.bhatti(["create", "--name", "later", "--secret", "API_KEY"])).exitCode).toBe(0)
  expect(await exec("later", "echo $API_KEY")).toBe("second\n")
})
