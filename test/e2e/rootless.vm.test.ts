/** A daemon of an ordinary user: what works without root, what it gives up, and that it says so. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { createServer } from "node:net"
import { trust } from "@bhatti/contract/trust"
import { descriptors } from "../../src/machine/command-line.ts"
import { setState, startDecoys, wordsOf } from "../support/decoys.ts"
import { type Installation, install, until } from "../support/installation.ts"

const isRoot = process.getuid?.() === 0
const uid = 660_000 + (process.pid % 30_000)
const userNamespaces =
  Bun.spawnSync([
    "setpriv",
    ...[`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--"],
    ...["unshare", "--user", "--map-root-user", "--mount", "--net", "true"],
  ]).exitCode === 0
const canRun = isRoot && userNamespaces
if (!canRun) console.log("skipped: needs root to become an ordinary user, and user namespaces for that user")

describe.skipIf(!canRun)("a daemon that is not root", () => {
  let own: Installation
  beforeAll(async () => {
    own = await install({ uid })
    const created = await own.bhatti(["create", "--name", "dev"])
    expect(created.exitCode).toBe(0)
  }, 600_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 60_000)

  const exec = (...command: string[]) => own.bhatti(["exec", "dev", "--", ...command])

  test("runs commands and files, stops and wakes, and survives its own death", async () => {
    expect((await exec("id", "-un")).stdout).toBe("lohar\n")
    expect((await exec("sudo", "id", "-u")).stdout).toBe("0\n")
    await exec("sh", "-c", "echo kept > /dev/shm/memory; echo kept > /workspace/disk")
    expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
    expect(own.machines()).toEqual([])
    expect((await exec("cat", "/dev/shm/memory", "/workspace/disk")).stdout).toBe("kept\nkept\n")
    const before = own.machines()
    await own.stopDaemon("SIGKILL")
    await own.startDaemon()
    expect(own.machines()).toEqual(before)
    expect((await exec("cat", "/dev/shm/memory")).stdout).toBe("kept\n")
  })

  test("finds its machine again among another user's processes with the same words", async () => {
    await exec("sh", "-c", "echo kept > /dev/shm/memory")
    const [before = 0] = own.machines()
    await using decoys = await startDecoys(wordsOf(before))
    await own.stopDaemon("SIGKILL")
    setState(own, "dev", { kind: "waking", fromSnapshot: false })
    await own.startDaemon()
    expect((await exec("cat", "/dev/shm/memory")).stdout).toBe("kept\n")
    expect(own.machines()).toEqual([before])
    expect(decoys.living()).toEqual(decoys.all)
  })

  test("moves files through the memory that it shares with the machine", async () => {
    const [machine = 0] = own.machines()
    const path = `/proc/${machine}/fd/${descriptors.shared}`
    const bytes = crypto.getRandomValues(new Uint8Array(65_536))
    const upload = own.start(["file", "write", "dev", "/workspace/bytes"])
    upload.stdin.write(bytes)
    await upload.stdin.flush()
    await until("the shared memory is used", () => statSync(path).blocks > 0)
    await upload.stdin.end()
    expect(await upload.exited).toBe(0)
    const wanted = new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
    expect((await exec("sha256sum", "/workspace/bytes")).stdout).toStartWith(wanted)
    expect(statSync(path).blocks).toBe(0)
  })

  test("confines its machines all the same, but with its own user id", () => {
    const machines = own.machines()
    expect(machines.length).toBe(1)
    for (const pid of machines) {
      const status = readFileSync(`/proc/${pid}/status`, "utf8")
      expect(status).toMatch(new RegExp(`^Uid:\\t${uid}\\t${uid}\\t`, "m"))
      for (const set of ["CapPrm", "CapEff", "CapBnd"])
        expect(status).toMatch(new RegExp(`^${set}:\\t0+$`, "m"))
      expect(status).toMatch(/^NoNewPrivs:\t1$/m)
      expect(status).toMatch(/^Seccomp:\t2$/m)
      for (const kind of ["user", "mnt", "pid", "ipc", "uts", "net"])
        expect(statSync(`/proc/${pid}/ns/${kind}`).ino, kind).not.toBe(statSync(`/proc/self/ns/${kind}`).ino)
      expect(readdirSync(`/proc/${pid}/root`).sort()).toEqual(["dev", "etc", "lib", "lib64", "proc", "usr"])
    }
  })

  test("lets its sandboxes reach nothing, even when they give themselves an address", async () => {
    let reached = 0
    const host = createServer((socket) => {
      reached++
      socket.end()
    })
    await new Promise<void>((ready) => host.listen(0, "127.0.0.1", ready))
    try {
      const { port } = host.address() as { port: number }
      // 10.0.2.2 is the host in QEMU's user network, 10.0.2.3 its name server.
      const tried = await exec(
        "sudo",
        "bash",
        "-c",
        `ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
         for target in 10.0.2.2/${port} 10.0.2.3/53 192.0.2.1/80; do
           timeout 2 bash -c "</dev/tcp/$target" 2>/dev/null && echo "reached $target"
         done; echo tried`,
      )
      expect(tried.stdout).toBe("tried\n")
      expect(reached).toBe(0)
    } finally {
      host.close()
    }
  })

  test("publishes ports all the same", async () => {
    const server = own.start([
      "exec",
      "dev",
      "--",
      "python3",
      "-m",
      "http.server",
      "8000",
      "--bind",
      "127.0.0.1",
    ])
    server.stdin.end()
    try {
      const published = await own.bhatti([
        "publish",
        "dev",
        "--port",
        "8000",
        "--alias",
        "rootless",
        "--json",
      ])
      expect(published.exitCode).toBe(0)
      await until("the server in the sandbox answers", async () => {
        const response = await fetch(own.url, { headers: { host: "rootless.localhost" } })
        return response.ok && (await response.text()).includes("Directory listing")
      })
    } finally {
      server.kill("SIGKILL")
      await server.exited
    }
  })

  test("says what it gives up, to its clients and to its operator", async () => {
    const { warnings } = JSON.parse((await own.bhatti(["version", "--daemon", "--json"])).stdout) as {
      warnings: string[]
    }
    expect(warnings).toContain(trust.notRoot)
    const doctor = await own.bhatti(["doctor", "--data-dir", own.dataDir])
    expect(doctor.stdout).toContain(trust.notRoot)
    expect(doctor.stdout).toContain("network: user: sandboxes reach nothing")
  })
})
