/**
 * Stopped sandboxes that are woken by a fork of their template's zygote (`fork_wakes`): each goes on where it was, with
 * its own code, confined like any machine, and is woken by a clone where the fork fails.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import { readStat } from "../../src/lib/process-identity.ts"
import { checkSeparation } from "../../src/machine/zygote-trial.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { Requests } from "../support/requests.ts"

const isRoot = process.getuid?.() === 0
const token = "of-the-test-alone"
const rounds = Number(process.env["FORK_WAKES"] ?? 10)
let own: Installation
let requests: Requests
beforeAll(async () => {
  if (!isRoot) return
  own = await install({
    pool: 2,
    config: `warm_after: 600\nforks: auto\nfork_wakes: true\nmetrics_token: ${token}\n`,
  })
  requests = new Requests(own)
  await zygoteIsReady()
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

async function zygoteIsReady(): Promise<void> {
  await until(
    "a zygote serves",
    async () => {
      const reply = await fetch(`${own.url}/metrics`, { headers: { authorization: `Bearer ${token}` } })
      return /^bhatti_zygotes_ready 1$/m.test(await reply.text())
    },
    { deadlineMs: 120_000 },
  )
}

function holderOf(path: string): number {
  const pid = readdirSync("/proc").find((name) => {
    try {
      if (!/^\d+$/.test(name)) return false
      return readdirSync(`/proc/${name}/fd`).some((fd) => readlinkSync(`/proc/${name}/fd/${fd}`) === path)
    } catch {
      return false
    }
  })
  return Number(pid ?? 0)
}
const machineOf = async (name: string) =>
  holderOf(join(own.dataDir, "sandboxes", (await requests.show(name))?.id ?? "", "disk.qcow2"))
function zygoteProcess(): number {
  const [name = ""] = readdirSync(join(own.dataDir, "zygotes"))
  return holderOf(join(own.dataDir, "zygotes", name, "disk.qcow2"))
}
/** A forked machine has its zygote's command line. */
const isForked = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("bhatti-zygote-")

async function create(name: string): Promise<void> {
  expect((await requests.create(name)).status).toBe(201)
}

async function stop(name: string): Promise<void> {
  expect((await requests.stop(name)).status).toBe(200)
}

/** Runs the script in the stopped sandbox, which must be woken from its memory by a fork. */
async function wake(name: string, script: string): Promise<string> {
  const output = await requests.output(name, script)
  const { body } = await requests.send("GET", `/events?sandbox=${name}&type=thermal.wake`)
  expect((body as { meta: { how: string } }[]).at(-1)?.meta.how).toBe("memory")
  const failed = await requests.send("GET", "/events?type=zygote.failed")
  expect(failed.body).toEqual([])
  expect(isForked(await machineOf(name))).toBe(true)
  return output
}

/**
 * Fills memory with functions, many on each page, and calls all of them when told to. Caches are dropped before, so
 * that the pages are those which held the code of programs.
 */
const codePages = `
import ctypes, mmap, os, struct
pages = 8000
code = mmap.mmap(-1, pages * 4096, prot=7)
base = ctypes.addressof(ctypes.c_char.from_buffer(code))
def fill(phase):
    for page in range(pages):
        piece = b"\\x05" + struct.pack("<I", page * 7 + phase)
        shift = page % 16 * 16
        for slot in range(16):
            at = page * 4096 + slot * 256 + shift
            end = b"\\xc3" if slot == 15 else b"\\xe9" + struct.pack("<i", 246)
            code[at:at + 10 if slot < 15 else at + 6] = piece + end
    return "filled"
def check(phase):
    clear = mmap.mmap(-1, 4096, prot=7)
    # xor eax, eax; jmp rdi
    clear.write(bytes.fromhex("31c0ffe7"))
    call = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(clear)))
    wrong = [page for page in range(pages)
             if call(base + page * 4096 + page % 16 * 16) != (page * 7 + phase) * 16 % 2**32]
    return f"{len(wrong)} wrong"
while True:
    with open("/tmp/in") as asked: name, phase = asked.read().split()
    answer = {"fill": fill, "check": check}[name](int(phase))
    with open("/tmp/out", "w") as answers: answers.write(answer)
`

/**
 * Makes a program that the zygote has run end with another status, in place: the code stays on the same page of the
 * guest's memory. The program is not run.
 */
const patchTrue = (status: number) => `sudo python3 - <<'END'
import struct
with open("/usr/bin/true", "r+b") as program:
    head = program.read(4096)
    entry, table = struct.unpack_from("<QQ", head, 24)
    size, count = struct.unpack_from("<HH", head, 54)
    for index in range(count):
        kind, flags, offset, address, _, length = struct.unpack_from("<IIQQQQ", head, table + index * size)
        if kind == 1 and flags & 1 and address <= entry < address + length:
            program.seek(offset + entry - address)
            program.write(bytes.fromhex("bf${status.toString(16).padStart(2, "0")}000000b83c0000000f05"))
END`

const ask = (words: string) => `echo ${words} > /tmp/in; cat /tmp/out`

describe.skipIf(!isRoot)("a stopped sandbox is woken by a fork", () => {
  test("again and again: its files, its memory and its processes go on, and it may work", async () => {
    await create("dev")
    const begin = `sh -c 'while :; do sleep 0.1; done' > /dev/null 2>&1 & echo $! > /tmp/pid
      echo of-memory > /dev/shm/kept; echo of-disk > /workspace/kept`
    await requests.output("dev", begin)
    const seen: string[] = []
    for (let round = 0; round < rounds; round++) {
      await stop("dev")
      const work = `kill -0 $(cat /tmp/pid) && cat /dev/shm/kept /workspace/kept
        head -c ${100_000 * (round + 1)} /dev/urandom > /workspace/data-${round}; sync
        (cd /workspace; sha256sum data-*) > /dev/shm/sums`
      expect(await wake("dev", work)).toBe("of-memory\nof-disk\n")
      const check =
        "sudo sh -c 'echo 3 > /proc/sys/vm/drop_caches'; cd /workspace; sha256sum -c /dev/shm/sums"
      seen.push(await requests.output("dev", check))
    }
    expect(
      seen
        .at(-1)
        ?.trim()
        .split("\n")
        .filter((line) => line.endsWith(": OK")).length,
    ).toBe(rounds)
    expect(
      await requests.output("dev", "dmesg 2>/dev/null | grep -ciE 'segfault|oops|I/O error' || true"),
    ).toBe("0\n")
  }, 120_000)

  test("no code runs that its pages held in the zygote, or before its last stop", async () => {
    await create("coder")
    const begin = `mkfifo /tmp/in /tmp/out; sudo sh -c 'echo 3 > /proc/sys/vm/drop_caches'
      cat > /tmp/code.py <<'END'\n${codePages}\nEND
      python3 /tmp/code.py > /dev/null 2>&1 & ${ask("fill 1")}`
    expect(await requests.output("coder", begin)).toBe("filled")
    for (const phase of [1, 2, 3]) {
      await stop("coder")
      expect(await wake("coder", ask(`check ${phase}`))).toBe("0 wrong")
      expect(await requests.output("coder", ask(`fill ${phase + 1}`))).toBe("filled")
    }
    const programs =
      "python3 -c 'print(sum(range(100000)))'; seq 1000 | sha256sum | cut -c1-8; ls / | grep -c usr"
    expect(await requests.output("coder", programs)).toBe("4999950000\n67d4ff71\n1\n")
  }, 120_000)

  test("a program that the zygote ran, and that was changed on its page, runs as it is now", async () => {
    await create("patched")
    for (const status of [7, 9]) {
      await requests.output("patched", patchTrue(status))
      await stop("patched")
      expect(await wake("patched", "/usr/bin/true; echo $?")).toBe(`${status}\n`)
    }
  }, 60_000)

  test("several at once, each as itself, in its own network", async () => {
    await create("peer")
    const whoAmI = "hostname; cat /etc/machine-id; ip -4 -o addr show eth0 | awk '{ print $4 }'"
    const names = ["dev", "peer"]
    const before = await Promise.all(names.map((name) => requests.output(name, whoAmI)))
    await Promise.all(names.map(stop))
    expect(await Promise.all(names.map((name) => wake(name, whoAmI)))).toEqual(before)
    const pids = await Promise.all(names.map(machineOf))
    expect(new Set(pids).size).toBe(2)
  }, 60_000)

  test("it is confined like a machine that was forked at its creation", async () => {
    const factsOf = (pid: number) => {
      const status = readFileSync(`/proc/${pid}/status`, "utf8")
      const names = [
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
      ]
      return {
        status: names.map((name) => new RegExp(`^${name}:.*$`, "m").exec(status)?.[0]),
        limits: readFileSync(`/proc/${pid}/limits`, "utf8"),
        mounts: readFileSync(`/proc/${pid}/mountinfo`, "utf8")
          .split("\n")
          .map((line) => line.split(" ")[4]),
        leads: Number(readStat(pid)?.[3]) === pid,
      }
    }
    await stop("peer")
    await wake("peer", "true")
    await create("fresh")
    const woken = factsOf(await machineOf("peer"))
    const fresh = factsOf(await machineOf("fresh"))
    expect(woken).toEqual(fresh)
    const pids = [await machineOf("peer"), await machineOf("fresh"), zygoteProcess()]
    const [peer = 0, ...others] = pids
    expect(pids).not.toContain(0)
    for (const other of others) checkSeparation(peer, other)
    const open = readdirSync(`/proc/${peer}/fd`).map((fd) => readlinkSync(`/proc/${peer}/fd/${fd}`))
    expect(open.filter((path) => path.includes("bhatti-wake"))).toEqual([])
  }, 60_000)

  test("a zygote that does not answer: it is woken by a clone, and nothing is lost", async () => {
    await stop("dev")
    process.kill(zygoteProcess(), "SIGSTOP")
    const kept = "kill -0 $(cat /tmp/pid) && cat /dev/shm/kept /workspace/kept"
    expect(await requests.output("dev", kept)).toBe("of-memory\nof-disk\n")
    expect(isForked(await machineOf("dev"))).toBe(false)
  }, 60_000)
})
