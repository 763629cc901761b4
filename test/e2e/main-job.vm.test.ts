/** The main job on real machines: create, run commands in every way, list, destroy, with the compiled binary. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { binary, type Installation, install, patience, until } from "../support/installation.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"
import { machineOf, Requests } from "../support/requests.ts"
import { residentMib } from "../support/resident.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ isForked: true })
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = (args: string[], options = {}) => own.bhatti(["exec", "dev", "--", ...args], options)

describe("exec", () => {
  test("runs in the guest's own kernel", async () => {
    const { stdout } = await exec(["uname", "-r"])
    expect(stdout.trim()).toMatch(/-cloud-amd64$/)
    expect(stdout).not.toBe(Bun.spawnSync(["uname", "-r"]).stdout.toString())
  })

  test("runs as lohar, who may become root without a password", async () => {
    expect((await exec(["id"])).stdout).toStartWith("uid=1000(lohar) gid=1000(lohar)")
    expect((await exec(["sudo", "id", "-u"])).stdout).toBe("0\n")
    expect((await exec(["pwd"])).stdout).toBe("/workspace\n")
    expect((await exec(["mkdir", "sub"])).exitCode).toBe(0)
    expect((await own.bhatti(["exec", "-w", "sub", "dev", "--", "pwd"])).stdout).toBe("/workspace/sub\n")
    expect(
      (await exec(["sh", "-c", "echo $HOME; touch /workspace/x && stat -c %U /workspace/x"])).stdout,
    ).toBe("/home/lohar\nlohar\n")
  })

  test("forwards the exit code", async () => {
    expect((await exec(["sh", "-c", "exit 7"])).exitCode).toBe(7)
    expect((await exec(["true"])).exitCode).toBe(0)
    expect((await exec(["sh", "-c", "kill -TERM $$"])).exitCode).toBe(143)
  })

  test("says which program is missing or may not run, with a shell's codes", async () => {
    const missing = await exec(["no-such-program"])
    expect(missing.exitCode).toBe(127)
    expect(missing.stderr).toContain("no-such-program")
    expect((await exec(["/etc/passwd"])).exitCode).toBe(126)
  })

  test("keeps stdout and stderr apart", async () => {
    const { stdout, stderr } = await exec(["sh", "-c", "echo to-out; echo to-err >&2"])
    expect(stdout).toBe("to-out\n")
    expect(stderr).toBe("to-err\n")
  })

  test("output comes while the command runs", async () => {
    const child = own.start([
      "exec",
      "-i",
      "dev",
      "--",
      "sh",
      "-c",
      "echo first; read line; echo second $line",
    ])
    const reader = child.stdout.getReader()
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("first\n")
    child.stdin.write("go\n")
    await child.stdin.flush()
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("second go\n")
    child.stdin.end()
    expect(await child.exited).toBe(0)
  })

  test("-i forwards standard input, without it the command reads end of file", async () => {
    expect((await own.bhatti(["exec", "-i", "dev", "--", "cat"], { stdin: "hi\n" })).stdout).toBe("hi\n")
    expect((await own.bhatti(["exec", "dev", "--", "cat"], { stdin: "hi\n" })).stdout).toBe("")
  })

  test("20 MB go in and come back unchanged", async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536))
    const input = Buffer.concat(Array.from({ length: 320 }, () => bytes))
    const { stdout } = await own.bhatti(["exec", "-i", "dev", "--", "sha256sum"], { stdin: input })
    expect(stdout.split(" ")[0]).toBe(new Bun.CryptoHasher("sha256").update(input).digest("hex"))
  })

  test("100 MB of output arrive whole, and neither daemon nor command line grow with it", async () => {
    const before = residentMib(own.daemonPid())
    const child = own.start(["exec", "dev", "--", "head", "-c", "104857600", "/dev/zero"])
    child.stdin.end()
    let bytes = 0
    let clientPeak = 0
    for await (const chunk of child.stdout) {
      bytes += chunk.length
      if (child.exitCode === null) clientPeak = Math.max(clientPeak, residentMib(child.pid))
    }
    expect(await child.exited).toBe(0)
    expect(bytes).toBe(104_857_600)
    expect(residentMib(own.daemonPid()) - before).toBeLessThan(32)
    expect(clientPeak).toBeLessThan(160)
  }, 180_000)

  test("a flood that nobody reads holds up no other command", async () => {
    const flood = own.start(["exec", "--reconnect", "1", "dev", "--", "sh", "-c", "yes"])
    const reader = flood.stdout.getReader()
    await reader.read()
    for (let count = 0; count < 3; count++) {
      const { exitCode, ms } = await exec(["true"])
      expect(exitCode).toBe(0)
      expect(ms).toBeLessThan(5000 * patience)
    }
    expect(residentMib(own.daemonPid(), "VmRSS")).toBeLessThan(400)
    flood.kill("SIGKILL")
    await flood.exited
    await until(
      "the guest's command is gone",
      async () => (await exec(["pgrep", "-x", "yes"])).exitCode === 1,
    )
  })

  test("--env, --cwd, --user and --timeout", async () => {
    const run = (flags: string[], command: string[]) =>
      own.bhatti(["exec", ...flags, "dev", "--", ...command])
    expect((await run(["--env", "A=1", "--env", "B=x,y"], ["sh", "-c", "echo $A $B"])).stdout).toContain("1")
    expect((await run(["--cwd", "/tmp"], ["pwd"])).stdout).toBe("/tmp\n")
    expect((await run(["--user", "root"], ["id", "-u"])).stdout).toBe("0\n")
    const late = await run(["--timeout", "1"], ["sleep", "60"])
    expect(late.exitCode).toBe(124)
    expect(late.stderr).toContain("--timeout")
    expect(late.ms).toBeLessThan(10_000 * patience)
    const nowhere = await run(["--cwd", "/nowhere"], ["pwd"])
    expect(nowhere.exitCode).toBe(2)
    expect(nowhere.stderr).toContain("/nowhere")
    const nobody = await run(["--user", "nobody-such"], ["id"])
    expect(nobody.exitCode).toBe(2)
    expect(nobody.stderr).toContain("nobody-such")
    expect((await run(["--cwd", "/tmp", "--user", "root"], ["/etc"])).exitCode).toBe(126)
  })

  test("Ctrl-C ends the command in the guest", async () => {
    const child = own.start(["exec", "dev", "--", "sh", "-c", "echo up; exec sleep 987"])
    const reader = child.stdout.getReader()
    await reader.read()
    child.kill("SIGINT")
    expect(await child.exited).toBe(130)
    await until("sleep is gone", async () => (await exec(["pgrep", "-f", "sleep 987"])).exitCode === 1)
  })

  test("Ctrl-C while a stopped sandbox wakes: the command does not run", async () => {
    expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
    const child = own.start(["exec", "dev", "--", "sleep", "876"])
    const status = async () =>
      JSON.parse((await own.bhatti(["inspect", "dev", "--json"])).stdout).status as string
    await until("it wakes", async () => (await status()) !== "stopped")
    child.kill("SIGINT")
    expect(await child.exited).toBe(130)
    await until("sleep is gone", async () => (await exec(["pgrep", "-f", "sleep 876"])).exitCode === 1)
  })

  test("as many words as fit", async () => {
    const words = Array.from({ length: 4094 }, () => "x".repeat(30))
    expect((await exec(["echo", ...words])).stdout.length).toBe(4094 * 31)
    const hard = "\u0001".repeat(43_000)
    expect((await exec(["printf", "%s", hard])).stdout).toBe(hard)
    expect((await exec(["printf", "%s", hard + hard])).exitCode).toBe(2)
  })

  test("a client that is killed takes its command with it, children and all", async () => {
    const child = own.start([
      "exec",
      "--reconnect",
      "1",
      "dev",
      "--",
      "sh",
      "-c",
      "sleep 654 & echo up; wait",
    ])
    await child.stdout.getReader().read()
    child.kill("SIGKILL")
    await child.exited
    await until("sleep is gone", async () => (await exec(["pgrep", "-f", "sleep 654"])).exitCode === 1)
  })

  test("a child that stays in the background does not hold the command", async () => {
    const { stdout, ms } = await exec(["sh", "-c", "sleep 30 & echo done"])
    expect(stdout).toBe("done\n")
    expect(ms).toBeLessThan(10_000 * patience)
  })

  test("a thousand commands, a hundred at a time, leave no zombie and no open descriptor, in the guest or the daemon", async () => {
    const descriptors = async () => Number((await exec(["sudo", "sh", "-c", "ls /proc/1/fd | wc -l"])).stdout)
    const ofDaemon = () => readdirSync(`/proc/${own.daemonPid()}/fd`).length
    const [before, beforeOfDaemon] = [await descriptors(), ofDaemon()]
    const requests = new Requests(own)
    for (let round = 0; round < 10; round++) {
      const replies = await Promise.all(
        Array.from({ length: 100 }, (_, number) =>
          requests.send("POST", "/sandboxes/dev/exec", { cmd: ["echo", `${number}`] }),
        ),
      )
      expect(replies).toMatchObject(
        replies.map((_, number) => ({ status: 200, body: { exit_code: 0, stdout: `${number}\n` } })),
      )
    }
    expect((await exec(["sh", "-c", "ps -eo stat= | grep -c Z"])).stdout.trim()).toBe("0")
    expect(await descriptors()).toBeLessThanOrEqual(before + 2)
    await until("the daemon has closed what it opened", () => ofDaemon() <= beforeOfDaemon + 2)
  }, 300_000)

  test("--json gives the contract's reply", async () => {
    const { stdout } = await own.bhatti([
      "exec",
      "--json",
      "dev",
      "--",
      "sh",
      "-c",
      "echo out; echo err >&2; exit 3",
    ])
    expect(JSON.parse(stdout)).toMatchObject({
      exit_code: 3,
      stdout: "out\n",
      stderr: "err\n",
      timed_out: false,
    })
  })
})

describe("sandboxes", () => {
  test("ten created at once answer, differ in everything that must differ, and go without a trace", async () => {
    const before = own.machines().length
    const names = Array.from({ length: 10 }, (_, index) => `ten-${index}`)
    const created = await Promise.all(names.map((name) => own.bhatti(["create", "--name", name])))
    expect(created.map(({ exitCode }) => exitCode)).toEqual(names.map(() => 0))

    const probe =
      "cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid"
    const answers = await Promise.all(
      names.map((name) => own.bhatti(["exec", name, "--", "sh", "-c", probe])),
    )
    const lines = answers.map(({ stdout }) => stdout.trim().split("\n"))
    for (const line of [0, 1, 2, 3]) expect(new Set(lines.map((one) => one[line])).size).toBe(10)
    expect(lines.map((one) => one[1])).toEqual(names)

    const clocks = await Promise.all(names.map((name) => own.bhatti(["exec", name, "--", "date", "+%s"])))
    for (const { stdout } of clocks) expect(Math.abs(Number(stdout) - Date.now() / 1000)).toBeLessThan(20)

    const ids = (JSON.parse((await own.bhatti(["list", "--json"])).stdout) as { id: string }[]).map(
      ({ id }) => id,
    )
    // A TAP is named after its sandbox.
    const tapsOf = () =>
      readdirSync("/sys/class/net").filter((name) => ids.some((id) => name.endsWith(id.slice(3, 11))))
    expect(tapsOf()).toHaveLength(11)
    const removed = await own.bhatti(["destroy", ...names])
    expect(removed.exitCode).toBe(0)
    expect(own.machines()).toHaveLength(before)
    expect(tapsOf()).toHaveLength(1)
    const left = readdirSync(join(own.dataDir, "sandboxes"))
    expect(left).toHaveLength(1)
    const listed = JSON.parse((await own.bhatti(["list", "--json"])).stdout) as { name: string }[]
    expect(listed.map(({ name }) => name)).toEqual(["dev"])
  }, 300_000)

  test("cpus, memory and disk are what was asked for", async () => {
    const made = await own.bhatti([
      "create",
      "--name",
      "big",
      "--cpus",
      "2",
      "--memory",
      "1024",
      "--disk",
      "16G",
    ])
    expect(made.stderr + made.stdout).toContain("big")
    const { stdout } = await own.bhatti([
      "exec",
      "big",
      "--",
      "sh",
      "-c",
      "nproc; free -m | awk '/Mem/{print $2}'; df -BM --output=size / | tail -1",
    ])
    const [cpus, memory, disk] = stdout
      .trim()
      .split("\n")
      .map((line) => Number.parseInt(line, 10))
    expect(cpus).toBe(2)
    expect(memory).toBeGreaterThan(900)
    expect(memory).toBeLessThan(1024)
    expect(disk).toBeGreaterThan(15_000)
    expect(
      (
        await own.bhatti([
          "exec",
          "big",
          "--",
          "sudo",
          "sh",
          "-c",
          "dd if=/dev/zero of=/x bs=1M count=64 status=none && sync",
        ])
      ).exitCode,
    ).toBe(0)
    await own.bhatti(["destroy", "big"])
  }, 120_000)

  test("a machine that is killed is reported within seconds, and boots from its disk at the next request", async () => {
    await own.bhatti(["create", "--name", "victim", "--env", "KEPT=yes"])
    await own.bhatti(["exec", "victim", "--", "sh", "-c", "echo on-disk > /workspace/file; sync"])
    const { id } = JSON.parse((await own.bhatti(["inspect", "victim", "--json"])).stdout) as { id: string }
    process.kill(machineOf(own, id), "SIGKILL")
    await until("the list says so", async () => (await own.bhatti(["list"])).stdout.includes("stopped"))
    const { stdout } = await own.bhatti([
      "exec",
      "victim",
      "--",
      "sh",
      "-c",
      "cat /workspace/file; echo $KEPT",
    ])
    expect(stdout).toBe("on-disk\nyes\n")
    expect((await own.bhatti(["destroy", "victim"])).exitCode).toBe(0)
  }, 120_000)

  test("machines run without rights: own user, no capabilities, no new privileges, seccomp", async () => {
    await own.bhatti(["create", "--name", "other"])
    const uids = new Set<string>()
    for (const pid of own.machines()) {
      const status = readFileSync(`/proc/${pid}/status`, "utf8")
      const field = (name: string) =>
        status
          .split("\n")
          .find((line) => line.startsWith(`${name}:`))
          ?.split(":")[1]
          ?.trim()
      uids.add(field("Uid") ?? "")
      expect(field("Uid")?.split("\t")[0]).not.toBe("0")
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
        expect(field(set)).toBe("0".repeat(16))
      expect(field("NoNewPrivs")).toBe("1")
      expect(field("Seccomp")).toBe("2")
    }
    expect(uids.size).toBe(own.machines().length)
    await own.bhatti(["destroy", "other"])
  })

  test("the data directory and all secrets in it are the daemon's alone", () => {
    const mode = (path: string) => Bun.spawnSync(["stat", "-c", "%a", path]).stdout.toString().trim()
    expect(mode(own.dataDir)).toBe("700")
    for (const file of ["age.key", "bhatti.db", "config.yaml"])
      expect(mode(join(own.dataDir, file))).toBe("600")
  })
})

describe("bad input", () => {
  test.each([
    ["an unknown sandbox", ["exec", "nowhere", "--", "true"], "nowhere"],
    ["a name that breaks the rule", ["create", "--name", "a/b"], "name"],
    ["a name that is taken", ["create", "--name", "dev"], "dev"],
    ["zero cpus", ["create", "--cpus", "0"], "cpus"],
    ["negative cpus", ["create", "--cpus", "-1"], "cpus"],
    ["huge cpus", ["create", "--cpus", "99999999999999999999"], "cpus"],
    ["zero memory", ["create", "--memory", "0"], "memory"],
    ["negative memory", ["create", "--memory", "-5"], "memory"],
    ["huge memory", ["create", "--memory", "99999999"], "memory"],
    ["more cpus than allowed", ["create", "--cpus", "64"], "limit"],
    ["an image that is not there", ["create", "--image", "windows"], "windows"],
    ["a small disk", ["create", "--disk", "10"], "disk"],
  ])("%s: one line that says what to do, a code, and nothing left behind", async (_what, args, word) => {
    const left = async () => [
      (await own.bhatti(["list", "--json"])).stdout,
      readdirSync(join(own.dataDir, "sandboxes")),
      own.machines(),
    ]
    const before = await left()
    const { stdout, stderr, exitCode } = await own.bhatti(args)
    expect(exitCode).not.toBe(0)
    expect(stdout).toBe("")
    expect(stderr).toStartWith("bhatti: ")
    expect(stderr).toContain(word)
    expect(stderr.trim().split("\n").length).toBeLessThanOrEqual(2)
    expect(await left()).toEqual(before)
  })

  test("a wrong key", async () => {
    const { stderr, exitCode } = await own.bhatti(["list"], { key: `bht_${"0".repeat(64)}` })
    expect(exitCode).toBe(1)
    expect(stderr).toContain("key")
  })

  test("a limit that is reached", async () => {
    const key = await own.addUser("small", ["--max-sandboxes", "1"])
    expect((await own.bhatti(["create"], { key })).exitCode).toBe(0)
    const refused = await own.bhatti(["create"], { key })
    expect(refused.exitCode).toBe(1)
    expect(refused.stderr).toContain("limit")
    const list = await own.bhatti(["list", "--json"], { key })
    for (const { id } of JSON.parse(list.stdout) as { id: string }[])
      await own.bhatti(["destroy", id], { key })
  })

  test("a daemon that does not run", async () => {
    const { stderr, exitCode } = await own.bhatti(["list"], { env: { BHATTI_URL: "http://127.0.0.1:1" } })
    expect(exitCode).toBe(1)
    expect(stderr).toContain("127.0.0.1:1")
  })

  test("a second daemon on the same data directory is refused", async () => {
    const { stderr, exitCode } = await own.bhatti([
      "serve",
      "--data-dir",
      own.dataDir,
      "--listen",
      "127.0.0.1:0",
    ])
    expect(exitCode).toBe(1)
    expect(stderr).toContain("another bhatti daemon")
  })

  test("a host without QEMU: the daemon does not start and says what to install, and so does the doctor", async () => {
    // Out of sight for this one process: in a mount namespace of its own.
    const hide = 'mount --bind /dev/null /usr/bin/qemu-system-x86_64 && exec "$@"'
    const withoutQemu = async (...args: string[]) => {
      const child = Bun.spawn(["unshare", "--mount", "sh", "-c", hide, "sh", binary, ...args], {
        env: { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent" },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      })
      const [stdout, stderr] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
      ])
      return { stdout, stderr, exitCode: await child.exited }
    }
    const empty = mkdtempSync("/tmp/bhatti-test-empty-")
    try {
      const dataDir = join(empty, "data")
      mkdirSync(dataDir)
      const served = await withoutQemu("serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0")
      expect(served).toEqual({
        stdout: "",
        stderr: "bhatti: QEMU is not installed\n  try: sudo apt-get install qemu-system-x86 qemu-utils\n",
        exitCode: 1,
      })
      const doctor = await withoutQemu("doctor", "--json", "--data-dir", dataDir)
      expect(doctor.exitCode).toBe(1)
      expect(JSON.parse(doctor.stdout)).toContainEqual(
        expect.objectContaining({
          area: "qemu-system-x86_64",
          status: "fail",
          fix: expect.stringContaining("apt-get install"),
        }),
      )
    } finally {
      rmSync(empty, { recursive: true })
    }
  })

  test("a directory that is no data directory gets neither keys nor a database, and says how to prepare it", async () => {
    const empty = mkdtempSync("/tmp/bhatti-test-empty-")
    try {
      for (const directory of [join(empty, "data"), empty]) {
        const { stderr, exitCode } = await own.bhatti(["serve", "--data-dir", directory])
        expect(exitCode).toBe(1)
        expect(stderr).toContain(`sudo bhatti init --data-dir ${directory}\n`)
      }
      expect(readdirSync(empty)).toEqual(["lock"])
    } finally {
      rmSync(empty, { recursive: true })
    }
  })
})

describe("the daemon", () => {
  test("killed and started again it finds every sandbox as it was, within seconds", async () => {
    const names = ["one", "two", "three", "four", "five"]
    await Promise.all(names.map((name) => own.bhatti(["create", "--name", name])))
    for (const name of names) {
      await own.bhatti(["exec", name, "--", "sh", "-c", startCountingScript])
    }
    const count = async (name: string) =>
      Number((await own.bhatti(["exec", name, "--", "sh", "-c", readCountScript])).stdout)
    const before = await Promise.all(names.map(count))
    const machines = own.machines().sort()

    await own.stopDaemon("SIGKILL")
    const startedAt = performance.now()
    await own.startDaemon()
    const after = await Promise.all(names.map(count))
    const tookMs = performance.now() - startedAt

    expect(after.map((value, index) => value >= (before[index] ?? 0) || [before[index], value])).toEqual(
      names.map(() => true),
    )
    expect(own.machines().sort()).toEqual(machines)
    expect(tookMs).toBeLessThan(10_000 * patience)
    await own.bhatti(["destroy", ...names])
  }, 120_000)

  test("killed in the middle of a create it leaves nothing of it", async () => {
    const child = own.start(["create", "--name", "half"])
    await until(
      "the machine starts",
      () =>
        existsSync(join(own.dataDir, "sandboxes")) && readdirSync(join(own.dataDir, "sandboxes")).length > 1,
    )
    await own.stopDaemon("SIGKILL")
    expect(await child.exited).not.toBe(0)
    await own.startDaemon()
    expect(JSON.parse((await own.bhatti(["list", "--json"])).stdout)).toHaveLength(1)
    expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(1)
    expect(own.machines()).toHaveLength(1)
  })
})
