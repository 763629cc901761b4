/** How a sandbox ends and begins again, from inside and from outside, on real machines in the default configuration. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = (name: string, ...args: string[]) => own.bhatti(["exec", name, "--", ...args])
const sh = async (name: string, script: string) => (await exec(name, "sh", "-c", script)).stdout.trim()

type Sandbox = { status: string; status_reason: string | null }
type Event = { type: string; meta: Record<string, unknown> }
async function json<T>(...args: string[]): Promise<T> {
  const { stdout, stderr } = await own.bhatti([...args, "--json"])
  if (stdout === "") throw new Error(stderr)
  return JSON.parse(stdout) as T
}
const stateOf = (name: string) => json<Sandbox>("inspect", name)
const eventsOf = async (name: string, type: string) =>
  (await own.bhatti(["events", "--sandbox", name, "--type", type, "--json"])).stdout
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .flatMap((line) => JSON.parse(line) as Event | Event[])
const bootOf = (name: string) => sh(name, "cat /proc/sys/kernel/random/boot_id")

test("poweroff inside ends it and loses no file, and the next request boots it", async () => {
  await own.bhatti(["create", "--name", "off"])
  await sh("off", "echo kept > /workspace/kept; sudo poweroff")
  await until("it is stopped", async () => (await stateOf("off")).status === "stopped")
  expect(await stateOf("off")).toMatchObject({ status_reason: "it was powered off inside" })
  expect((await eventsOf("off", "sandbox.ended"))[0]?.meta).toMatchObject({ by: "guest", how: "poweroff" })
  expect(await sh("off", "cat /workspace/kept")).toBe("kept")
  await own.bhatti(["destroy", "off"])
}, 120_000)

test("reboot inside starts it again by itself, also while no daemon runs", async () => {
  await own.bhatti(["create", "--name", "again"])
  const first = await bootOf("again")
  await sh("again", "sudo shutdown -r now")
  await until("it was started again", async () => (await eventsOf("again", "thermal.wake")).length > 0)
  expect(await stateOf("again")).toMatchObject({ status: "running", status_reason: "it was rebooted inside" })
  const second = await bootOf("again")
  expect(second).not.toBe(first)

  await sh("again", "(sleep 2; sudo reboot) >/dev/null 2>&1 &")
  await own.stopDaemon("SIGKILL")
  // Nobody is there to hear of it: the machine stands still.
  const diedAtMs = Date.now()
  await until("the guest has rebooted", () => Date.now() > diedAtMs + 5000)
  await own.startDaemon()
  await until("it was started again", async () => (await eventsOf("again", "thermal.wake")).length > 1, {
    deadlineMs: 60_000,
  })
  expect(await bootOf("again")).not.toBe(second)
  await own.bhatti(["destroy", "again"])
}, 180_000)

test("a kernel panic is told from both, and why shows the console", async () => {
  await own.bhatti(["create", "--name", "panic"])
  await sh("panic", "echo c | sudo tee /proc/sysrq-trigger")
  await until("it is stopped", async () => (await stateOf("panic")).status === "stopped")
  expect((await stateOf("panic")).status_reason).toMatch(/^its kernel panicked: /)
  const [ended] = await eventsOf("panic", "sandbox.ended")
  expect(ended?.meta).toMatchObject({ how: "panic", console: expect.stringContaining("Kernel panic") })
  expect((await own.bhatti(["why", "panic"])).stdout).toContain("Kernel panic - not syncing")
  expect(await sh("panic", "echo lives")).toBe("lives")
  await own.bhatti(["destroy", "panic"])
}, 120_000)

test("a machine that is killed from outside is told from one that its guest has ended", async () => {
  await own.bhatti(["create", "--name", "killed"])
  for (const pid of own.machines()) process.kill(pid, "SIGKILL")
  await until("it is stopped", async () => (await stateOf("killed")).status === "stopped")
  expect(await stateOf("killed")).toMatchObject({ status_reason: "its machine was killed" })
  await own.bhatti(["destroy", "killed"])
}, 120_000)

test("restart ends programs in good order and boots, and the init script runs again, by default", async () => {
  const init =
    "echo $(hostname) boots; echo $((1 + $(cat /workspace/boots 2>/dev/null || echo 0))) > /workspace/boots; sync; exit 5"
  await own.bhatti(["create", "--name", "boots", "--init", init])
  await until(
    "its failure is an event",
    async () => (await eventsOf("boots", "sandbox.init_failed")).length === 1,
  )
  const ending = "trap 'echo ended > /workspace/ended; exit' TERM; while :; do sleep 0.1; done"
  await exec("boots", "bash", "-c", `(${ending}) >/dev/null 2>&1 &`)
  const first = await bootOf("boots")

  const restarted = await own.bhatti(["restart", "boots"])
  expect(restarted.stdout).toMatch(/^sandbox\/boots restarted in /)
  expect(await bootOf("boots")).not.toBe(first)
  expect(await sh("boots", "cat /workspace/ended")).toBe("ended")
  await until("it ran again", async () => (await sh("boots", "cat /workspace/boots")) === "2")
  expect((await own.bhatti(["logs", "boots"])).stdout).toBe("boots boots\r\n")
  await until(
    "its second failure is an event",
    async () => (await eventsOf("boots", "sandbox.init_failed")).length === 2,
  )
  expect((await eventsOf("boots", "sandbox.init_failed"))[1]?.meta).toMatchObject({ exit_code: 5 })

  // The host's power is lost.
  for (const pid of own.machines()) process.kill(pid, "SIGKILL")
  await until("it is stopped", async () => (await stateOf("boots")).status === "stopped")
  await until("it ran again", async () => (await sh("boots", "cat /workspace/boots")) === "3")
  await own.bhatti(["stop", "boots"])
  expect(await sh("boots", "cat /workspace/boots")).toBe("3")
  await own.bhatti(["destroy", "boots"])
}, 180_000)
