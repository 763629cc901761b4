/**
 * The product under KVM: what sandboxes are for, on a host where KVM works. `kvm.test.ts` runs it in a machine that has
 * one; on a host with KVM it can be run as it is, with BHATTI_UNDER_KVM=1. No time in it is measured.
 */

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { appendFileSync, chmodSync, chownSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { cacheDir, type Installation, install, until } from "../support/installation.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"

setDefaultTimeout(900_000)

const isAsked = process.env["BHATTI_UNDER_KVM"] === "1"
/** The same sources under another version, `kvm.test.ts` builds it. */
const other = process.env["BHATTI_OTHER_BINARY"]
const device = "/dev/kvm"

describe.skipIf(!isAsked)("under KVM", () => {
  let own: Installation
  const udev = isAsked ? statSync(device) : undefined
  beforeAll(async () => {
    // As on hosts without udev's rules; machines run as other users.
    chownSync(device, 0, 0)
    chmodSync(device, 0o600)
    own = await install({ config: "require_kvm: true\n" })
  }, 1_800_000)
  afterAll(async () => {
    await own?.[Symbol.asyncDispose]()
    if (udev !== undefined) {
      chownSync(device, udev.uid, udev.gid)
      chmodSync(device, udev.mode & 0o777)
    }
  }, 300_000)

  async function ok(...args: string[]): Promise<string> {
    const ran = await own.bhatti(args)
    expect([args, ran.exitCode, ran.exitCode === 0 ? "" : ran.stderr]).toEqual([args, 0, ""])
    return ran.stdout
  }
  const exec = (name: string, command: string) => ok("exec", name, "--", "sh", "-c", command)
  const about = async (name: string) => JSON.parse(await ok("inspect", name, "--json")) as { thermal: string }

  test("a device that is root's alone is given to machines, and what was tried is told", async () => {
    const version = await ok("version", "--daemon")
    expect(version).toContain("KVM (a guest boots under KVM; tried ")
    expect(version).not.toContain("software emulation")
    const doctor = await own.bhatti(["doctor", "--data-dir", own.dataDir])
    expect(doctor.stdout).toContain("a guest boots under KVM, started as machines are")
  })

  test("create, exec with its exit code and its input, files both ways, and a published port", async () => {
    await ok("create", "--name", "dev")
    expect(await exec("dev", "uname -s")).toBe("Linux\n")
    expect((await own.bhatti(["exec", "dev", "--", "sh", "-c", "exit 7"])).exitCode).toBe(7)
    const piped = await own.bhatti(["exec", "-i", "dev", "--", "sha256sum"], { stdin: "x".repeat(300_000) })
    const digest = new Bun.CryptoHasher("sha256").update("x".repeat(300_000)).digest("hex")
    expect(piped.stdout).toBe(`${digest}  -\n`)
    const bytes = crypto.getRandomValues(new Uint8Array(60_000))
    await own.bhatti(["file", "write", "dev", "/workspace/bytes"], { stdin: bytes })
    expect((await exec("dev", "sha256sum /workspace/bytes")).slice(0, 64)).toBe(
      new Bun.CryptoHasher("sha256").update(bytes).digest("hex"),
    )
    await exec("dev", "cd /workspace; setsid python3 -m http.server 8000 </dev/null >/dev/null 2>&1 &")
    await ok("publish", "dev", "-p", "8000", "-a", "served")
    const host = `served.localhost:${new URL(own.url).port}`
    const ask = async () => (await fetch(`${own.url}/bytes`, { headers: { host } })).arrayBuffer()
    await until("it is served", async () => Buffer.from(await ask()).equals(Buffer.from(bytes)))
    const [pid = 0] = own.machines()
    expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toContain("-accel\0kvm\0-cpu\0host")
    expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(/^CapEff:\t0+$/m)
    expect(readFileSync(`/proc/${pid}/status`, "utf8")).not.toMatch(/^Uid:\t0\t/m)
  })

  test("a paused one goes on when it is asked something, and one on disk with all that it had in memory", async () => {
    await exec("dev", `echo in-memory > /dev/shm/nonce; ${startCountingScript}`)
    const count = async () => Number(await exec("dev", readCountScript))
    const before = await count()
    await ok("stop", "dev")
    expect((await about("dev")).thermal).toBe("cold")
    expect(own.machines()).toEqual([])
    expect(await exec("dev", "cat /dev/shm/nonce")).toBe("in-memory\n")
    const after = await count()
    expect(after).toBeGreaterThanOrEqual(before)
    await until("it counts on", async () => (await count()) > after)
    expect(JSON.stringify(await ok("why", "dev"))).not.toContain("boot")
  })

  test("its clock is the host's after it has been on disk", async () => {
    await ok("stop", "dev")
    const guest = Number(await exec("dev", "date +%s"))
    expect(Math.abs(guest - Date.now() / 1000)).toBeLessThan(60)
  })

  test("a fork and a named snapshot have the same memory and disk, and go their own ways", async () => {
    await ok("create", "--from", "dev", "--name", "copy")
    await exec("copy", "echo copy > /dev/shm/nonce; echo copy > /workspace/bytes")
    expect(await exec("dev", "cat /dev/shm/nonce; wc -c < /workspace/bytes")).toBe("in-memory\n60000\n")
    await ok("snapshot", "create", "dev", "--name", "kept")
    await ok("snapshot", "resume", "kept", "--name", "resumed")
    expect(await exec("resumed", "cat /dev/shm/nonce; wc -c < /workspace/bytes")).toBe("in-memory\n60000\n")
    await ok("destroy", "-y", "copy", "resumed")
    await ok("snapshot", "delete", "kept")
  })

  test("a daemon that is killed leaves the machines running, and its successor has them", async () => {
    const machines = own.machines()
    const before = Number(await exec("dev", readCountScript))
    await own.stopDaemon("SIGKILL")
    expect(own.machines()).toEqual(machines)
    await own.startDaemon()
    expect(own.machines()).toEqual(machines)
    expect(Number(await exec("dev", readCountScript))).toBeGreaterThan(before)
  })

  test.skipIf(other === undefined)(
    "another version takes over what runs, stops it and wakes it",
    async () => {
      await own.stopDaemon("SIGTERM")
      const machines = own.machines()
      await own.startDaemon({ binary: other ?? "" })
      expect(JSON.parse(await ok("version", "--daemon", "--json"))).toMatchObject({ version: "9.9.9-other" })
      expect(own.machines()).toEqual(machines)
      expect(await exec("dev", "cat /dev/shm/nonce")).toBe("in-memory\n")
      await ok("stop", "dev")
      expect(await exec("dev", "cat /dev/shm/nonce")).toBe("in-memory\n")
      await own.stopDaemon("SIGTERM")
      await own.startDaemon()
      expect(await exec("dev", "cat /dev/shm/nonce")).toBe("in-memory\n")
    },
  )

  /** For a sandbox with 512 MB. The host's limit on its machine has room for all of it, and for QEMU. */
  const useMemory = (name: string) =>
    exec(name, "head -c 380000000 /dev/zero > /dev/shm/all; wc -c < /dev/shm/all; rm /dev/shm/all")

  test("one that uses its memory is not ended by the host, whether it was cloned or booted", async () => {
    await exec("dev", "sudo mount -o remount,size=400M /dev/shm")
    expect(await useMemory("dev")).toBe("380000000\n")
    const [machine = 0] = own.machines()
    process.kill(machine, "SIGKILL")
    await until("the daemon knows", async () => (await about("dev")).thermal === "cold")
    await exec("dev", "sudo mount -o remount,size=400M /dev/shm")
    expect(await useMemory("dev")).toBe("380000000\n")
  })

  test("a machine that dies boots from its disk", async () => {
    await exec("dev", "echo on-disk > /workspace/file; sync")
    const [machine = 0] = own.machines()
    process.kill(machine, "SIGKILL")
    await until("the daemon knows", async () => (await about("dev")).thermal === "cold")
    expect(await exec("dev", "cat /workspace/file; cat /dev/shm/nonce 2>&1 | tail -c 26")).toStartWith(
      "on-disk\n",
    )
    await ok("destroy", "-y", "dev")
  })

  test("one with two processors uses both, also after it has been on disk", async () => {
    await ok("create", "--name", "two", "--cpus", "2")
    const busy =
      "nproc; for i in 1 2; do (timeout 1 sh -c 'while :; do :; done' &) ; done; sleep 1; grep -c '^cpu[0-9]' /proc/stat"
    expect(await exec("two", busy)).toBe("2\n2\n")
    await exec("two", "echo both > /dev/shm/nonce")
    await ok("stop", "two")
    expect(await exec("two", "nproc; cat /dev/shm/nonce")).toBe("2\nboth\n")
    await ok("destroy", "-y", "two")
  })

  test("without a jail a device that is root's alone is told, and nothing is served that needs KVM", async () => {
    await own.stopDaemon("SIGTERM")
    const path = join(own.dataDir, "config.yaml")
    const before = readFileSync(path, "utf8")
    appendFileSync(path, "confinement: reduced\n")
    const refused = await own.bhatti(["serve", "--data-dir", own.dataDir])
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("KVM is not usable")])
    expect(refused.stderr).toContain("ermission denied")
    await Bun.write(path, before)
    await own.startDaemon()
    await ok("create", "--name", "again")
    expect(await exec("again", "echo served")).toBe("served\n")
    await ok("destroy", "-y", "again")
  })

  test("init --probe tries KVM again", async () => {
    await own.stopDaemon("SIGTERM")
    const path = join(own.dataDir, "kvm-probe.json")
    const found = JSON.parse(readFileSync(path, "utf8"))
    await Bun.write(path, JSON.stringify({ ...found, problem: "for a passing reason" }))
    const refused = await own.bhatti(["serve", "--data-dir", own.dataDir])
    expect(refused.stderr).toContain("for a passing reason")
    expect(refused.stderr).toContain("bhatti init --probe")
    const tried = await own.bhatti(["init", "--probe", "--data-dir", own.dataDir, "--cache-dir", cacheDir])
    expect([tried.exitCode, tried.stderr + tried.stdout]).toEqual([
      0,
      expect.stringContaining("accelerator kvm"),
    ])
    await own.startDaemon()
  })
})
