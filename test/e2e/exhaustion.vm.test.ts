/**
 * Sandboxes that use up whatever they can get, or lie to the daemon, beside one that goes on working. Nothing here asks
 * how fast: that the neighbour and the daemon answer, that destroying works, and that nothing is left.
 */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { connect, type Socket } from "node:net"
import { constants } from "node:os"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { nameOfMachine } from "../support/requests.ts"
import { residentMib } from "../support/resident.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "good"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

let daemonPid: number
beforeEach(async () => {
  daemonPid = own.daemonPid()
  expect((await own.bhatti(["create", "--name", "bad"])).exitCode).toBe(0)
})
afterEach(async () => {
  expect((await own.bhatti(["destroy", "bad", "--yes"])).exitCode).toBe(0)
  await neighbourAnswers()
  await until("its machine is gone", () => own.machines().length === 1)
  // The same daemon all along, and not a large one.
  expect(own.daemonPid()).toBe(daemonPid)
  expect(statusOf(daemonPid, "VmRSS")).toBeLessThan(400 * 1024)
})

function statusOf(pid: number, field: string): number {
  return Number(
    new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1],
  )
}

const bad = (...command: string[]) => own.bhatti(["exec", "bad", "--", ...command])

/** Leaves a program behind that no connection holds. */
async function leave(script: string): Promise<void> {
  const detached = "cat >/tmp/script; setsid sudo python3 /tmp/script </dev/null >/tmp/log 2>&1 &"
  const left = await own.bhatti(["exec", "-i", "bad", "--", "sh", "-c", detached], { stdin: script })
  expect(left.exitCode).toBe(0)
}

async function neighbourAnswers(): Promise<void> {
  for (let count = 0; count < 5; count++) {
    const answer = await own.bhatti(["exec", "good", "--", "echo", "fine"])
    expect(answer).toMatchObject({ stdout: "fine\n", exitCode: 0 })
  }
}

test("a fork bomb stays in its sandbox: its QEMU gets no thread more, and destroying it works", async () => {
  await leave(`
import os
while True:
    try: os.fork()
    except OSError: pass
`)
  await neighbourAnswers()
  for (const pid of own.machines()) expect(statusOf(pid, "Threads")).toBeLessThan(100)
})

test("a program that takes all memory is ended by its own kernel, and the agent lives", async () => {
  // The agent is the guest's first process, which its kernel never chooses.
  const hog = await bad("python3", "-c", "x = []\nwhile True: x.append(bytearray(1 << 20))")
  // Killed, or told so by Python.
  expect(hog.exitCode).not.toBe(0)
  expect((await bad("echo", "alive")).stdout).toBe("alive\n")
  await neighbourAnswers()
})

test("a full disk is told to who writes, and room made helps", async () => {
  // With each end of a write ext4 gives back what it had set aside for a longer file, so the rest is written until
  // nothing more fits.
  const fill = `fallocate -l 64G full; >rest
size() { stat -c %s rest; }
until [ "$before" = "$(size)" ]; do before=$(size); cat /dev/zero >>rest; sync; done`
  expect((await bad("sh", "-c", `cd /workspace; ${fill}`)).exitCode).toBe(0)
  const written = await own.bhatti(["file", "write", "bad", "/workspace/more"], {
    stdin: Buffer.alloc(8 << 20),
  })
  expect(written.exitCode).toBe(1)
  expect(written.stderr).toContain("space")
  expect((await bad("rm", "/workspace/full", "/workspace/rest")).exitCode).toBe(0)
  const again = await own.bhatti(["file", "write", "bad", "/workspace/more"], {
    stdin: Buffer.alloc(8 << 20),
  })
  expect(again.exitCode).toBe(0)
})

/** Sets up the network card's queue in the BIOS' memory, whose bytes are no queue, again and again. */
const complaining = `
import glob, os, struct
nic = next(d for d in glob.glob("/sys/bus/pci/devices/*") if open(d + "/class").read().startswith("0x0200"))
open(nic + "/driver/unbind", "w").write(os.path.basename(nic))
with open(nic + "/config", "r+b", 0) as config:
    config.seek(4)
    config.write(struct.pack("<H", 7))
memory = os.open("/dev/mem", os.O_RDONLY)
index = lambda page: struct.unpack("<H", os.pread(memory, 2, (page + 1) * 4096 + 2))[0]
page = next(page for page in range(0xe0, 0xff) if 256 < index(page))
ports = os.open(nic + "/resource0", os.O_RDWR)
while True:
    # Reset it, say that its driver is ready, choose a queue, say where it is, and that it has something.
    for port, value in ((18, 0), (18, 7), (14, 1), (8, page), (16, 1)):
        os.pwrite(ports, bytes([value]), port)
`

test("guest root that makes a device complain without end fills no file, nobody waits for it, and its machine's last words are in the log", async () => {
  const pid = own.machines().at(-1) ?? 0
  const directory = join(own.dataDir, "sandboxes", nameOfMachine(pid))
  const writes = () => Number(/^syscw: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1])
  const sizes = () =>
    readdirSync(directory)
      .filter((name) => !name.endsWith(".sock") && name !== "disk.qcow2")
      .map((name) => statSync(join(directory, name)).size)
      .reduce((sum, size) => sum + size, own.daemonLog().length)
  await leave(complaining)
  const before = { writes: writes(), bytes: sizes() }
  await until("it has complained often", () => writes() > before.writes + 20_000, {
    deadlineMs: 60_000,
  })
  await neighbourAnswers()
  expect((await bad("echo", "still here")).stdout).toBe("still here\n")
  expect(sizes() - before.bytes).toBeLessThan(65_536)

  await bad("sudo", "poweroff", "-f")
  await until("its end is known", () => own.daemonLog().includes("powered off inside"))
  const words = own.daemonLog().slice(before.bytes)
  expect(words).toMatch(/Guest (moved used index|says index)/)
  expect(sizes() - before.bytes).toBeLessThan(2 * 65_536)
}, 180_000)

/**
 * In the long form all half a million files that a disk of the default size has inodes for. Otherwise those of a small
 * file system in the guest, more than the hundred thousand that are listed.
 */
const fillsDisk = process.env["BHATTI_TEST_LONG"] === "1"

test("as many files as a file system has inodes for are listed, kept by a stop, and one more is refused until one goes", async () => {
  const mount = "sudo mount -t tmpfs -o nr_inodes=101000,uid=$(id -u) small d"
  const prepared = await bad("sh", "-c", `cd /workspace && mkdir d && ${fillsDisk ? "true" : mount}`)
  expect([prepared.exitCode, prepared.stderr]).toEqual([0, ""])
  const script = `
import os
made = 0
try:
    while True:
        if made % 100000 == 0: os.makedirs(f"/workspace/d/{made // 100000}")
        os.mknod(f"/workspace/d/{made // 100000}/{made}")
        made += 1
except OSError as error:
    print(made, error.errno)
`
  const command = ["exec", "--timeout", "900", "bad", "--", "python3", "-c", script]
  const { stdout } = await own.bhatti(command, { deadlineMs: 900_000 })
  const [made = 0, code] = stdout.split(" ").map(Number)
  expect(code).toBe(constants.errno.ENOSPC)
  expect(made).toBeGreaterThan(fillsDisk ? 500_000 : 100_000)

  const write = () => own.bhatti(["file", "write", "bad", "/workspace/d/more"], { stdin: "more" })
  const refused = await write()
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("space")])
  // The guest reads the inodes from its disk while it still writes them out.
  const listed = await own.bhatti(["file", "ls", "bad", "/workspace/d/0", "--json"], {
    deadlineMs: 180_000,
  })
  expect([listed.exitCode, listed.stderr]).toEqual([0, ""])
  expect((JSON.parse(listed.stdout) as unknown[]).length).toBe(100_000)
  await neighbourAnswers()

  expect((await own.bhatti(["stop", "bad"])).exitCode).toBe(0)
  const count = await bad("sh", "-c", "for d in /workspace/d/*; do ls -U $d; done | wc -l")
  expect(Number(count.stdout)).toBe(made)
  expect((await bad("rm", "/workspace/d/0/1")).exitCode).toBe(0)
  expect((await write()).exitCode).toBe(0)
}, 1_200_000)

/** Clients whose flood runs: each has got some of it, and where `isRead` goes on reading. */
async function startFloods(count: number, options: { isRead: boolean }) {
  return await Promise.all(
    Array.from({ length: count }, async () => {
      const client = own.start(["exec", "--reconnect", "1", "bad", "--", "yes", "a flood"])
      client.stdin.end()
      const reader = client.stdout.getReader()
      for (let bytes = 0; bytes < floodBytes; ) bytes += (await reader.read()).value?.length ?? floodBytes
      const readAll = async () => {
        while (!(await reader.read()).done);
      }
      const reading = options.isRead ? readAll() : undefined
      return { client, ended: async () => void (await Promise.all([client.exited, reading ?? readAll()])) }
    }),
  )
}

const floodsInGuest = async () => Number((await bad("sh", "-c", "pgrep -cx yes || true")).stdout)
const floodBytes = 8 * 1024 * 1024

test.each([
  [true, "reads as fast as it can"],
  [false, "has stopped reading"],
])("floods end with their clients, read: %p, and the daemon keeps nothing of them", async (isRead) => {
  const before = residentMib(daemonPid)
  const floods = await startFloods(4, { isRead })
  expect(await floodsInGuest()).toBe(4)
  await neighbourAnswers()
  for (const { client } of floods) client.kill("SIGKILL")
  await Promise.all(floods.map(({ ended }) => ended()))
  await until("no flood is left", async () => (await floodsInGuest()) === 0, { deadlineMs: 60_000 })
  // Four windows, and what the sockets hold; a second's flood would be more.
  await until("the daemon is small again", () => residentMib(daemonPid) < before + 64)
  await neighbourAnswers()
})

test("a command that floods is ended by a signal and by its time limit, whoever reads", async () => {
  const [slow] = await startFloods(1, { isRead: false })
  slow?.client.kill("SIGTERM")
  await until("it is gone", async () => (await floodsInGuest()) === 0, { deadlineMs: 60_000 })
  await slow?.ended()
  expect(slow?.client.exitCode).not.toBe(0)
  const late = own.start(["exec", "--timeout", "2", "bad", "--", "yes"])
  late.stdin.end()
  const reader = late.stdout.getReader()
  expect((await reader.read()).value?.length).toBeGreaterThan(0)
  await until("its time is over", async () => (await floodsInGuest()) === 0, { deadlineMs: 60_000 })
  while (!(await reader.read()).done);
  expect(await late.exited).not.toBe(0)
})

test("guest root that writes garbage to the agent's channel loses its own sandbox and no other", async () => {
  expect((await bad("touch", "/dev/shm/before-the-flood")).exitCode).toBe(0)
  // The agent's own descriptor of the channel, taken from it as root may.
  await leave(`
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
agent = libc.syscall(434, 1, 0)
names = [n for n in os.listdir("/proc/1/fd") if os.readlink("/proc/1/fd/" + n).startswith("/dev/vport")]
channel = libc.syscall(438, agent, int(names[0]), 0)
os.set_blocking(channel, True)
frame = bytes.fromhex("0200000000000001000080000000") + b"x" * 32768
while True:
    for noise in (os.urandom(65536), bytes(65536), b"\\xff" * 65536, frame * 2, b"\\xb4LOHAR\\r\\n" * 4096):
        os.write(channel, noise)
`)
  let isLost = false
  for (let round = 0; round < 30 && !isLost; round++) {
    const answer = await bad("sh", "-c", "echo hello; ls /dev/shm")
    // It may get through between two floods; what it does not do is hang, or say something else.
    if (answer.exitCode === 0) {
      expect(answer.stdout).toStartWith("hello\n")
      isLost = !answer.stdout.includes("before-the-flood")
    } else expect(answer.stderr).toStartWith("bhatti: ")
    await neighbourAnswers()
  }
  // Its machine was given up, with all that was in its memory.
  expect(isLost).toBe(true)
  const health = await fetch(`${own.url}/health`)
  expect(health.status).toBe(200)
})

test("two thousand idle connections and a hundred slow ones leave room for others, and the slow ones are cut", async () => {
  const { hostname, port } = new URL(own.url)
  const sockets: Socket[] = []
  const open = async (first: string): Promise<Socket> => {
    const socket = connect({ host: hostname, port: Number(port) })
    sockets.push(socket)
    socket.on("error", () => undefined)
    await new Promise<void>((ready) => socket.once("connect", () => ready()).once("close", () => ready()))
    if (first !== "") socket.write(first)
    return socket
  }
  try {
    for (let batch = 0; batch < 19; batch++) await Promise.all(Array.from({ length: 100 }, () => open("")))
    const slow = await Promise.all(
      Array.from({ length: 100 }, () => open("GET /health HTTP/1.1\r\nHost: local")),
    )
    await neighbourAnswers()
    for (const socket of slow) socket.resume()
    await until("the slow ones are cut", () => slow.every((socket) => socket.closed), { deadlineMs: 60_000 })
  } finally {
    for (const socket of sockets) socket.destroy()
  }
})
