/** Idle sandboxes cool down and any request warms them up again, on real machines, with short times. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Installation, install, patience, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ config: "warm_after: 3\ncold_after: 3\n" })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (name: string, ...args: string[]) =>
  (await own.bhatti(["exec", name, "--", ...args])).stdout

async function get<T>(path: string): Promise<T> {
  const response = await fetch(`${own.url}${path}`, { headers: { authorization: `Bearer ${own.key}` } })
  return (await response.json()) as T
}
const thermalOf = async (name: string) => (await get<{ thermal: string }>(`/sandboxes/${name}`)).thermal
const why = (name: string) =>
  get<{ reason: string; changes_to: string | null; open_streams: number; keeps_awake: string[] }>(
    `/sandboxes/${name}/why`,
  )

test("an idle sandbox is paused, then written to disk, and each time the next request finds it as it was", async () => {
  await own.bhatti(["create", "--name", "idle"])
  await exec("idle", "sh", "-c", "echo kept > /dev/shm/kept")
  // Due so late that it does not count.
  await exec("idle", "sh", "-c", "sleep 90000 >/dev/null 2>&1 &")
  await until("it is warm", async () => (await thermalOf("idle")) === "warm", { deadlineMs: 60_000 })
  expect((await why("idle")).changes_to).toBe("cold")
  expect(await exec("idle", "cat", "/dev/shm/kept")).toBe("kept\n")
  expect(await thermalOf("idle")).toBe("hot")
  expect(Math.abs(Number(await exec("idle", "date", "+%s")) - Date.now() / 1000)).toBeLessThan(10 * patience)

  await until("it is cold", async () => (await thermalOf("idle")) === "cold", { deadlineMs: 60_000 })
  expect(own.machines()).toHaveLength(0)
  expect(await exec("idle", "cat", "/dev/shm/kept")).toBe("kept\n")
  await own.bhatti(["destroy", "idle"])
}, 180_000)

test("a connected client keeps it hot, and so does work inside that nobody watches", async () => {
  await own.bhatti(["create", "--name", "busy"])
  const child = own.start(["exec", "-i", "busy", "--", "cat"])
  await until("the stream is open", async () => (await why("busy")).open_streams === 1)
  const deadline = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("busy")).toBe("hot")
    return Date.now() > deadline
  })
  child.stdin.end()
  await child.exited

  await exec("busy", "sh", "-c", "(while :; do :; done) >/dev/null 2>&1 & echo started")
  const later = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("busy")).toBe("hot")
    return Date.now() > later
  })
  expect((await why("busy")).reason).toContain("works inside")
  await own.bhatti(["destroy", "busy"])
}, 180_000)

test("what is kept hot is never paused", async () => {
  await own.bhatti(["create", "--name", "kept"])
  const answer = await fetch(`${own.url}/sandboxes/kept`, {
    method: "PATCH",
    headers: { authorization: `Bearer ${own.key}` },
    body: JSON.stringify({ keep_hot: true }),
  })
  expect(await answer.json()).toMatchObject({ keep_hot: true })
  const deadline = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("kept")).toBe("hot")
    return Date.now() > deadline
  })
  await own.bhatti(["destroy", "kept"])
}, 120_000)

/** Write the time each five seconds: by sleep, a read that times out, the clock, and what Go and Python have for it. */
const pacers = `cd /workspace; mkfifo never
(while sleep 5; do date +%s >> slept; done) >/dev/null 2>&1 &
(exec -a reader bash -c 'while :; do read -t 5 x <> never; date +%s >> polled; done') >/dev/null 2>&1 &
./ticker pace >/dev/null 2>&1 &
./ticker cron 5 >/dev/null 2>&1 &
python3 -c 'import time
while True: time.sleep(5); print(int(time.time()), file=open("woken", "a"))' >/dev/null 2>&1 &`

/** Poll, have keep-alive timers, and have children that wait by the clock, as database servers do. */
const servers = `cd /workspace
python3 -m http.server 8001 >/dev/null 2>&1 &
./ticker serve >/dev/null 2>&1 &
node -e 'require("http").createServer((request, response) => response.end()).listen(8004); setInterval(() => {}, 20000)' >/dev/null 2>&1 &
python3 -c 'import socket, select, os
listener = socket.create_server(("127.0.0.1", 8003))
if os.fork() == 0:
  listener.close(); os.setsid()
  while True: select.select([], [], [], 5)
while True:
  if select.select([listener], [], [], 20)[0]: listener.accept()[0].close()' >/dev/null 2>&1 &
python3 -c 'import threading
while True: threading.Event().wait(.2)' >/dev/null 2>&1 &
for port in 8001 8002 8003 8004; do until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep .1; done; done`

/**
 * "pace" writes the time each five seconds, "serve" is a server whose own timer comes each twenty, "cron" writes the
 * time at each full N seconds of the clock, by an absolute timer.
 */
const ticker = `package main

import ("fmt"; "net/http"; "os"; "strconv"; "syscall"; "time"; "unsafe")

func untilFull(seconds int64) {
  const realTime, absolute = 0, 1
  timer, _, _ := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, realTime, 0, 0)
  due := [4]int64{0, 0, (time.Now().Unix() / seconds + 1) * seconds, 0}
  syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, timer, absolute, uintptr(unsafe.Pointer(&due)), 0, 0, 0)
  var count [8]byte
  syscall.Read(int(timer), count[:])
  syscall.Close(int(timer))
}

func main() {
  if os.Args[1] == "serve" {
    go func() { for range time.Tick(20 * time.Second) {} }()
    panic(http.ListenAndServe("127.0.0.1:8002", nil))
  }
  name := "ticked"
  for {
    if os.Args[1] == "cron" {
      name = "clocked"
      seconds, _ := strconv.ParseInt(os.Args[2], 10, 64)
      untilFull(seconds)
    } else {
      time.Sleep(5 * time.Second)
    }
    file, _ := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
    fmt.Fprintln(file, time.Now().Unix())
    file.Close()
  }
}
`

async function copyTicker(sandbox: string): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "bhatti-ticker-"))
  try {
    writeFileSync(join(directory, "ticker.go"), ticker)
    const built = Bun.spawnSync(["go", "build", "-o", "ticker", "ticker.go"], {
      cwd: directory,
      env: { ...process.env, CGO_ENABLED: "0", GO111MODULE: "off" },
    })
    expect(built.stderr.toString()).toBe("")
    const copied = await own.bhatti(["cp", join(directory, "ticker"), `${sandbox}:/workspace/ticker`])
    expect(copied.stderr).toBe("")
  } finally {
    rmSync(directory, { recursive: true })
  }
}

test("jobs that wait for timers keep their pace beside servers, also when the daemon is killed; servers alone are paused", async () => {
  await own.bhatti(["create", "--name", "pace"])
  await copyTicker("pace")
  await exec("pace", "bash", "-c", servers)
  await exec("pace", "bash", "-c", pacers)
  const stays = async (ms: number) => {
    const end = Date.now() + ms
    await until("it stays hot all the time", async () => {
      expect(await thermalOf("pace")).toBe("hot")
      return Date.now() > end
    })
  }
  await stays(10_000)
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  await stays(10_000)
  for (const file of ["slept", "polled", "ticked", "woken", "clocked"]) {
    const stamps = (await exec("pace", "cat", `/workspace/${file}`)).trim().split("\n").map(Number)
    expect(stamps.length).toBeGreaterThanOrEqual(3)
    const gaps = stamps.slice(1).map((stamp, index) => stamp - (stamps[index] ?? 0))
    expect(Math.max(...gaps)).toBeLessThanOrEqual(5 + 2 * patience)
  }
  // The servers and the poller go on; of the jobs there is one left, each full minute.
  await exec("pace", "sh", "-c", "pkill bash; pkill -f '[t]icker [pc]'; pkill -f '[t]ime.sleep'; true")
  await exec("pace", "sh", "-c", "cd /workspace; ./ticker cron 60 >/dev/null 2>&1 &")
  // Each why asks the guest, for which fifty of them a second are work.
  let askedAt = 0
  await until("why says it", async () => {
    if (Date.now() - askedAt < 2000) return false
    askedAt = Date.now()
    return (await why("pace")).keeps_awake.some((words) => /^a timer inside it: due in \d+ s$/.test(words))
  })
  await exec("pace", "pkill", "-f", "[t]icker cron")
  await until("it is warm", async () => (await thermalOf("pace")) === "warm", { deadlineMs: 60_000 })
  expect(await exec("pace", "sh", "-c", "curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8001")).toBe("200")
  expect(
    await exec(
      "pace",
      "sh",
      "-c",
      "ps -eo args | grep -c '[t]icker serve\\|[c]reateServer\\|[8]003\\|[h]ttp.server\\|[E]vent()'",
    ),
  ).toBe("6\n")
  await own.bhatti(["destroy", "pace"])
}, 180_000)

test("a command that runs is told before its sandbox's time is over, and a restart of the daemon forgets no end", async () => {
  await own.bhatti(["create", "job", "--ttl", "4", "--on-ttl", "destroy"])
  const command = await own.bhatti(["exec", "job", "--", "sh", "-c", "sleep 6; echo done"])
  expect(command.stdout).toBe("done\n")
  expect(command.stderr).toContain('bhatti: sandbox "job" is destroyed in 2 s: its time to live ends')
  await until("it is destroyed", async () => (await own.bhatti(["list", "-q"])).stdout === "")
  expect((await own.bhatti(["why", "job"])).stdout).toContain("it was destroyed: its time to live is over")

  await own.bhatti(["create", "nap", "--ttl", "8"])
  await exec("nap", "sh", "-c", "echo kept > /dev/shm/kept")
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  await until("it is saved", async () => (await thermalOf("nap")) === "cold", { deadlineMs: 60_000 })
  await until(
    "its time is over",
    async () => (await own.bhatti(["why", "nap"])).stdout.includes("time to live is over"),
    {
      deadlineMs: 60_000,
    },
  )
  expect(await exec("nap", "cat", "/dev/shm/kept")).toBe("kept\n")
  await until("its time begins anew", async () => (await own.bhatti(["list"])).stdout.includes("pause in"))
  await own.bhatti(["destroy", "nap"])
}, 180_000)
