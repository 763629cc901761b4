/** Forking on real machines: the copies are whole, differ in who they are, and the source does not notice. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "dev", "--env", "KEPT=yes"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (name: string, command: string) =>
  (await own.bhatti(["exec", name, "--", "sh", "-c", command])).stdout

test("five copies of a busy sandbox: five whole memories and disks, five identities, an unbroken source", async () => {
  await exec(
    "dev",
    "echo in-memory > /dev/shm/nonce; head -c 3000000 /dev/urandom > /workspace/data; sha256sum /workspace/data > /workspace/sum",
  )
  await exec(
    "dev",
    "(i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done) >/dev/null 2>&1 & echo started",
  )
  const watcher = own.start(["exec", "-i", "dev", "--", "cat"])
  const reader = watcher.stdout.getReader()

  const names = ["one", "two", "three", "four", "five"]
  for (const name of names) {
    const made = await own.bhatti(["create", "--from", "dev", "--name", name])
    expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  }
  const probe =
    "cat /dev/shm/nonce; cd /workspace && sha256sum -c sum; cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; echo $KEPT"
  const answers = await Promise.all(
    [...names, "dev"].map(async (name) => (await exec(name, probe)).trim().split("\n")),
  )
  for (const answer of answers) {
    expect(answer.slice(0, 2)).toEqual(["in-memory", "/workspace/data: OK"])
    expect(answer[5]).toBe("yes")
  }
  for (const line of [2, 3, 4]) expect(new Set(answers.map((answer) => answer[line])).size).toBe(6)

  for (const name of [...names, "dev"]) {
    const before = Number(await exec(name, "cat /dev/shm/count"))
    await until(`${name} counts on`, async () => Number(await exec(name, "cat /dev/shm/count")) > before)
  }
  watcher.stdin.write("still here\n")
  await watcher.stdin.flush()
  expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("still here\n")
  watcher.stdin.end()
  await watcher.exited

  await exec("one", "echo changed > /workspace/data")
  expect(await exec("dev", "cd /workspace && sha256sum -c sum")).toBe("/workspace/data: OK\n")
  expect((await own.bhatti(["destroy", "dev"])).exitCode).toBe(0)
  expect(await exec("two", "cd /workspace && sha256sum -c sum")).toBe("/workspace/data: OK\n")
  expect((await own.bhatti(["destroy", ...names])).exitCode).toBe(0)
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toEqual([])
  expect(own.machines()).toEqual([])
}, 300_000)

test("a copy gets a secret only when it is asked for again", async () => {
  await own.bhatti(["secret", "set", "TOKEN", "canary-123"])
  await own.bhatti(["create", "--name", "source", "--secret", "TOKEN"])
  expect(await exec("source", "echo $TOKEN")).toBe("canary-123\n")
  await own.bhatti(["create", "--from", "source", "--name", "without"])
  await own.bhatti(["create", "--from", "source", "--name", "with", "--secret", "TOKEN"])
  expect(await exec("without", "echo $TOKEN")).toBe("\n")
  expect(await exec("with", "echo $TOKEN")).toBe("canary-123\n")
  await own.bhatti(["destroy", "source", "without", "with"])
}, 120_000)

test("a copy of one whose network was taken apart has its own, whole", async () => {
  await own.bhatti(["create", "--name", "source"])
  const apart = "ip address add 10.9.9.9/24 dev eth0; ip route flush dev eth0; ip link set eth0 down"
  expect(await exec("source", `sudo sh -c '${apart}'; cat /sys/class/net/eth0/operstate`)).toBe("down\n")
  const made = await own.bhatti(["create", "--from", "source", "--name", "copy", "--json"])
  expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  const { ip } = JSON.parse(made.stdout)
  expect(await exec("copy", "cat /sys/class/net/eth0/operstate; ip -4 -o address show eth0")).toContain(
    ` ${ip}/32 `,
  )
  expect(await exec("copy", "ip route")).toMatch(/^default via \S+ dev eth0/m)
  await own.bhatti(["destroy", "source", "copy"])
}, 120_000)

test("a source that does not exist is said so, and nothing is made", async () => {
  const { stderr, exitCode } = await own.bhatti(["create", "--from", "nowhere"])
  expect(exitCode).toBe(1)
  expect(stderr).toContain("nowhere")
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toEqual([])
})
