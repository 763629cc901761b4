/**
 * Crashes of everything, on real machines: of the daemon, of QEMU, of the guest, of the host. Named after what each
 * shows.
 */

import { Database } from "bun:sqlite"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"
import { machineOf, Requests, tapsOf } from "../support/requests.ts"

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ isForked: true, config: "warm_after: 0\ndisk_reserve_mb: 0\n" })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

/** Each test ends with nothing left, and with the daemon running. */
afterEach(async () => {
  if (own.daemonExitCode() !== null) await own.startDaemon()
  const sandboxes = await requests.list()
  await Promise.all(sandboxes.map(({ name }) => requests.destroy(name)))
  expect(await requests.leftovers()).toEqual([])
  expect(own.machines()).toEqual([])
  expect(tapsOf(sandboxes.map(({ id }) => id))).toEqual([])
}, 120_000)

const idOf = async (name: string) => (await requests.show(name))?.id ?? ""
const machine = async (name: string) => machineOf(own, await idOf(name))
const mark = async (name: string) => {
  expect((await requests.create(name)).status).toBe(201)
  await requests.output(name, `echo ${name} > /dev/shm/nonce; echo ${name} > /workspace/file; sync`)
}
const database = <T>(work: (db: Database) => T): T => {
  const db = new Database(join(own.dataDir, "bhatti.db"))
  try {
    return work(db)
  } finally {
    db.close()
  }
}

describe("the daemon", () => {
  test("kill -9 with five running sandboxes: all are adopted, counters count on, a shell session is still there", async () => {
    const names = ["one", "two", "three", "four", "five"]
    for (const name of names) {
      await mark(name)
      await requests.output(name, startCountingScript)
    }
    const init = await requests.create("six", { init: "echo from-the-session; exec sleep 1000" })
    expect(init.status).toBe(201)
    const counted = async (name: string) => Number(await requests.output(name, readCountScript))
    const before = await Promise.all(names.map(counted))
    const machines = own.machines().sort()

    await own.stopDaemon("SIGKILL")
    const startedAt = performance.now()
    await own.startDaemon()
    const after = await Promise.all(names.map(counted))
    const ms = Math.round(performance.now() - startedAt)
    console.log(`five sandboxes answered ${ms} ms after the daemon's start`)

    expect(own.machines().sort()).toEqual(machines)
    for (const [index, value] of after.entries()) expect(value).toBeGreaterThanOrEqual(before[index] ?? 0)
    for (const [index, name] of names.entries()) {
      await until(`${name} counts on`, async () => (await counted(name)) > (after[index] ?? 0))
      expect(await requests.output(name, "cat /dev/shm/nonce /workspace/file")).toBe(`${name}\n${name}\n`)
    }
    const { body } = await requests.send("GET", "/sandboxes/six/sessions")
    expect(body).toMatchObject([{ name: "init", running: true }])
    expect(ms).toBeLessThan(20_000 * patience)
  }, 240_000)

  test("a second one on the same data directory is refused, and the first goes on", async () => {
    await mark("dev")
    const second = await own.bhatti(["serve", "--data-dir", own.dataDir, "--listen", "127.0.0.1:0"])
    expect([second.exitCode, second.stderr]).toEqual([1, expect.stringContaining("another bhatti daemon")])
    expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
  }, 60_000)

  test.each([
    ["corrupt", (path: string) => truncateSync(path, 5000)],
    [
      "no database at all",
      (path: string) => writeFileSync(path, "this is not a database, and it is longer than a header is"),
    ],
    ["from a later version", (path: string) => forgetMigration(path)],
  ])(
    "a database that is %s: the start is refused with its cause, and no machine is touched",
    async (_what, damage) => {
      await mark("dev")
      const pid = await machine("dev")
      await own.stopDaemon("SIGTERM")
      const path = join(own.dataDir, "bhatti.db")
      database((db) => db.run("pragma wal_checkpoint(truncate)"))
      const whole = readFileSync(path)
      damage(path)
      const refused = await own.bhatti(["serve", "--data-dir", own.dataDir, "--listen", "127.0.0.1:0"], {
        deadlineMs: 30_000,
      })
      expect(refused.exitCode).toBe(1)
      expect(refused.stderr).toContain("database")
      expect(existsSync(`/proc/${pid}`)).toBe(true)
      expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(1)

      for (const suffix of ["-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true })
      writeFileSync(path, whole, { mode: 0o600 })
      await own.startDaemon()
      expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
      expect(await machine("dev")).toBe(pid)
    },
    120_000,
  )

  test("a database that another process has locked: the start is refused with its cause, and no machine is touched", async () => {
    await mark("dev")
    const pid = await machine("dev")
    await own.stopDaemon("SIGTERM")
    const db = new Database(join(own.dataDir, "bhatti.db"))
    try {
      db.run("pragma locking_mode = exclusive")
      db.run("begin exclusive")
      const refused = await own.bhatti(["serve", "--data-dir", own.dataDir, "--listen", "127.0.0.1:0"], {
        deadlineMs: 60_000,
      })
      expect(refused.exitCode).toBe(1)
      expect(refused.stderr).toContain("database")
      expect(existsSync(`/proc/${pid}`)).toBe(true)
      db.run("rollback")
    } finally {
      db.close()
    }
    await own.startDaemon()
    expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
  }, 120_000)

  test.each([
    ["data directory", () => own.dataDir],
    ["database", () => join(own.dataDir, "bhatti.db")],
  ])(
    "a %s that may not be written: the start is refused with its cause, and no machine is touched",
    async (what, pathOf) => {
      await mark("dev")
      const pid = await machine("dev")
      await own.stopDaemon("SIGTERM")
      const readable = readOnly(pathOf())
      try {
        const refused = await own.bhatti(["serve", "--data-dir", own.dataDir, "--listen", "127.0.0.1:0"], {
          deadlineMs: 60_000,
        })
        expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining(what)])
        expect(refused.stderr).not.toContain("$bunfs")
        expect(existsSync(`/proc/${pid}`)).toBe(true)
      } finally {
        readable[Symbol.dispose]()
      }
      await own.startDaemon()
      expect(await machine("dev")).toBe(pid)
      expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
    },
    120_000,
  )

  test("a machine that nobody knows runs on, its directory is set aside when it has ended, and another installation's stay", async () => {
    await using other = await install({ config: "warm_after: 0\n" })
    const theirs = new Requests(other)
    expect((await theirs.create("theirs")).status).toBe(201)
    const foreign = other.machines()
    await mark("orphan")
    await mark("kept")
    const orphan = await machine("orphan")
    const id = await idOf("orphan")
    await own.stopDaemon("SIGKILL")
    database((db) => db.run("delete from sandboxes where id = ?", [id]))
    await own.startDaemon()
    expect(own.machines()).toContain(orphan)
    expect((await requests.list()).map(({ name }) => name)).toEqual(["kept"])
    expect((await requests.send("GET", "/events?type=unknown.running")).status).toBe(200)
    expect(own.daemonLog()).toContain("a machine runs that the database does not know")

    await own.stopDaemon("SIGTERM")
    process.kill(orphan, "SIGKILL")
    await until("the machine is gone", () => !existsSync(`/proc/${orphan}/fd`))
    await own.startDaemon()
    const aside = readdirSync(join(own.dataDir, "set-aside"))
    expect(aside).toHaveLength(1)
    expect(aside[0]).toContain(id)
    rmSync(join(own.dataDir, "set-aside"), { recursive: true })
    expect(await requests.leftovers()).toEqual([])
    expect(other.machines()).toEqual(foreign)
    expect(await theirs.output("theirs", "echo there")).toBe("there\n")
  }, 240_000)
})

function forgetMigration(path: string): void {
  const db = new Database(path)
  db.run("insert into kysely_migration (name, timestamp) values ('9999-later', '2030-01-01')")
  db.run("pragma wal_checkpoint(truncate)")
  db.close()
}

describe("the host", () => {
  test("after its reboot sandboxes are cold with the reason, and boot from their disks", async () => {
    await mark("dev")
    await mark("stopped")
    expect((await requests.stop("stopped")).status).toBe(200)
    const pid = await machine("dev")
    await own.stopDaemon("SIGKILL")
    process.kill(pid, "SIGKILL")
    await until("the machine is gone", () => !existsSync(`/proc/${pid}/fd`))
    const bootId = crypto.randomUUID()
    database((db) =>
      db.run(
        "update sandboxes set state = json_set(state, '$.machine.process.bootId', ?) where name = 'dev'",
        [bootId],
      ),
    )
    await own.startDaemon()
    expect(await requests.show("dev")).toMatchObject({
      status: "stopped",
      status_reason: expect.stringContaining("ended"),
    })
    expect(await requests.output("dev", "cat /workspace/file; ls /dev/shm")).toBe("dev\n")
    expect(await requests.output("stopped", "cat /dev/shm/nonce /workspace/file")).toBe("stopped\nstopped\n")
  }, 120_000)

  test("a pid that is another process's by now is neither adopted nor killed", async () => {
    await mark("dev")
    const pid = await machine("dev")
    const bystander = Bun.spawn(["sleep", "1000"])
    try {
      await own.stopDaemon("SIGKILL")
      process.kill(pid, "SIGKILL")
      await until("the machine is gone", () => !existsSync(`/proc/${pid}/fd`))
      database((db) =>
        db.run(
          "update sandboxes set state = json_set(state, '$.machine.process.pid', ?) where name = 'dev'",
          [bystander.pid],
        ),
      )
      await own.startDaemon()
      expect(await requests.show("dev")).toMatchObject({ status: "stopped" })
      expect(await requests.output("dev", "cat /workspace/file")).toBe("dev\n")
      expect((await requests.destroy("dev")).status).toBeLessThan(300)
      expect(bystander.exitCode ?? bystander.signalCode).toBeNull()
    } finally {
      bystander.kill()
      await bystander.exited
    }
  }, 120_000)
})

describe("QEMU", () => {
  test("stopped by a signal: others are unaffected, no call waits for ever, and it can be destroyed", async () => {
    await mark("stuck")
    await mark("free")
    const pid = await machine("stuck")
    process.kill(pid, "SIGSTOP")
    const asked = requests.stop("stuck")
    for (let round = 0; round < 5; round++) expect(await requests.output("free", "echo well")).toBe("well\n")
    expect((await requests.create("more")).status).toBe(201)
    const { status, body } = await asked
    expect([status, JSON.stringify(body)]).toEqual([503, expect.stringContaining("stuck")])
    const startedAt = performance.now()
    expect((await requests.destroy("stuck")).status).toBeLessThan(300)
    expect(performance.now() - startedAt).toBeLessThan(10_000 * patience)
    expect(own.machines()).not.toContain(pid)
  }, 180_000)

  test("stopped by a signal during a stop and continued later: the sandbox comes back by itself, memory and all", async () => {
    await mark("dev")
    const pid = await machine("dev")
    process.kill(pid, "SIGSTOP")
    expect((await requests.stop("dev")).status).toBe(503)
    // Nor do those cost it anything that find it so.
    for (let round = 0; round < 2; round++) expect((await requests.exec("dev", "true")).status).toBe(503)
    process.kill(pid, "SIGCONT")
    expect(await requests.output("dev", "cat /dev/shm/nonce /workspace/file")).toBe("dev\ndev\n")
    const again = await requests.stop("dev")
    expect([again.status, JSON.stringify(again.body)]).toEqual([200, expect.any(String)])
    expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
  }, 180_000)

  test("stopped by a signal while the daemon starts: the others answer at once, and it does when it goes on", async () => {
    await mark("stuck")
    await mark("free")
    const pid = await machine("stuck")
    await own.stopDaemon("SIGKILL")
    process.kill(pid, "SIGSTOP")
    await own.startDaemon()
    expect(await requests.output("free", "cat /dev/shm/nonce")).toBe("free\n")
    // Its adoption still waits for QEMU, which otherwise would have been the first to answer.
    const asked = requests.output("stuck", "cat /dev/shm/nonce")
    process.kill(pid, "SIGCONT")
    expect(await asked).toBe("stuck\n")
  }, 120_000)

  test("killed at any moment of a wake: the daemon goes on, and the sandbox does from its memory or says why not", async () => {
    await mark("dev")
    for (let delayMs = 0; delayMs < 200; delayMs += 20) {
      expect((await requests.stop("dev")).status).toBe(200)
      const waking = requests.start("dev")
      await until("it starts", () => own.machines().length > 0)
      await Bun.sleep(delayMs)
      for (const pid of own.machines()) process.kill(pid, "SIGKILL")
      expect([200, 503]).toContain((await waking).status)
      const look = "cat /workspace/file; cat /dev/shm/nonce 2>/dev/null || true"
      // A command that had reached the machine when it died may have run: it is not run twice, and its caller is told.
      const first = await requests.exec("dev", look)
      const { retryable, reason } = first.body as { retryable?: boolean; reason?: string }
      if (first.status !== 200)
        expect([first.status, retryable || reason === "machine_killed"]).toEqual([503, true])
      const memory = await requests.output("dev", look)
      if (memory === "dev\ndev\n") continue
      expect(memory).toBe("dev\n")
      expect((await requests.show("dev"))?.status_reason).toBeTruthy()
      await requests.output("dev", "echo dev > /dev/shm/nonce")
    }
  }, 180_000)

  test("killed while it is saved and used: the sandbox boots from its disk, and says why", async () => {
    await mark("dev")
    for (const during of ["stop", "use"] as const) {
      const pid = await machine("dev")
      const going = during === "stop" ? requests.stop("dev") : requests.exec("dev", "sleep 100")
      if (during === "use") {
        await until(
          "it runs",
          async () => (await requests.output("dev", "pgrep -c sleep || true")).trim() === "1",
        )
      }
      process.kill(pid, "SIGKILL")
      const { status } = await going
      expect([during, status === 503 || (during === "stop" && status === 200)]).toEqual([during, true])
      expect(await requests.output("dev", "cat /workspace/file")).toBe("dev\n")
    }
    expect(own.machines()).toHaveLength(1)
  }, 180_000)
})

describe("the guest", () => {
  test.each([
    ["panics", "echo c > /proc/sysrq-trigger", "its kernel panicked"],
    ["switches itself off", "sync; echo o > /proc/sysrq-trigger", "it was powered off inside"],
  ])(
    "%s: it is reported, QEMU is gone, and the next request boots it",
    async (_what, trigger, reason) => {
      await mark("dev")
      const pid = await machine("dev")
      void requests.exec("dev", `sudo sh -c '${trigger}'`)
      await until("it is reported", async () => (await requests.show("dev"))?.status === "stopped")
      expect((await requests.show("dev"))?.status_reason).toContain(reason)
      expect(own.machines()).not.toContain(pid)
      expect(await requests.output("dev", "cat /workspace/file; ls /dev/shm")).toBe("dev\n")
    },
    120_000,
  )
})

describe("a snapshot", () => {
  const damages: [string, (directory: string) => void][] = [
    ["truncated memory", (directory) => truncateSync(join(directory, "memory"), 100_000)],
    ["a flipped byte of memory", (directory) => flip(join(directory, "memory"))],
    ["a flipped byte of device state", (directory) => flip(join(directory, "state"))],
    ["missing memory", (directory) => rmSync(join(directory, "memory"))],
    ["missing device state", (directory) => rmSync(join(directory, "state"))],
    ["a missing manifest", (directory) => rmSync(join(directory, "manifest.json"))],
    ["a manifest that is no JSON", (directory) => writeFileSync(join(directory, "manifest.json"), "{")],
    ["a manifest without its files", (directory) => writeFileSync(join(directory, "manifest.json"), "{}")],
  ]
  test.each(damages)(
    "with %s is never loaded: the sandbox boots from its disk",
    async (_what, damage) => {
      await mark("dev")
      expect((await requests.stop("dev")).status).toBe(200)
      const id = await idOf("dev")
      damage(join(own.dataDir, "sandboxes", id, "snapshot"))
      expect(await requests.output("dev", "cat /workspace/file; ls /dev/shm")).toBe("dev\n")
      expect(own.daemonLog()).toContain(id)
      expect((await requests.stop("dev")).status).toBe(200)
      expect(await requests.output("dev", "cat /workspace/file")).toBe("dev\n")
    },
    120_000,
  )
})

function flip(path: string): void {
  const bytes = readFileSync(path)
  const at = bytes.length - 100
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at)
  writeFileSync(path, bytes)
}

/** Nobody can write there, root neither, until this is disposed of. */
function readOnly(path: string): Disposable {
  for (const options of [
    ["--bind", path],
    ["-o", "remount,bind,ro"],
  ])
    expect(Bun.spawnSync(["mount", ...options, path]).exitCode).toBe(0)
  return { [Symbol.dispose]: () => void Bun.spawnSync(["umount", "--lazy", path]) }
}

describe("the host's disk", () => {
  test("read-only: a create says so and leaves nothing, a stop leaves the sandbox running, and later both work", async () => {
    await mark("dev")
    const pid = await machine("dev")
    {
      using _readable = readOnly(join(own.dataDir, "sandboxes"))
      const refused = [await requests.create("late"), await requests.stop("dev")]
      for (const { status, body } of refused)
        expect([status, JSON.stringify(body)]).toEqual([503, expect.stringContaining("read-only")])
      expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
      expect((await requests.list()).map(({ name }) => name)).toEqual(["dev"])
    }
    expect(await machine("dev")).toBe(pid)
    expect(await requests.leftovers()).toEqual([])
    expect((await requests.create("late")).status).toBe(201)
    expect((await requests.stop("dev")).status).toBe(200)
    expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
  }, 120_000)

  /** The sandboxes' directory on a file system of its own, that a test can fill. */
  async function onSmallDisk(
    mib: number,
    work: (disk: { fill(): void; free(): void }) => Promise<void>,
  ): Promise<void> {
    const directory = join(own.dataDir, "sandboxes")
    const filler = join(directory, "filler")
    mkdirSync(directory, { recursive: true })
    expect(
      Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${mib}m`, "bhatti-test", directory]).exitCode,
    ).toBe(0)
    try {
      await work({
        fill: () => void Bun.spawnSync(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k", "status=none"]),
        free: () => rmSync(filler, { force: true }),
      })
    } finally {
      rmSync(filler, { force: true })
      for (const { name } of await requests.list()) await requests.destroy(name)
      expect(Bun.spawnSync(["umount", directory]).exitCode).toBe(0)
    }
  }

  test("full during a stop: the sandbox goes on, the error says so, and with space again the stop works", async () => {
    await onSmallDisk(400, async ({ fill, free }) => {
      await mark("dev")
      await requests.output(
        "dev",
        "head -c 30000000 /dev/urandom > /dev/shm/big; sha256sum /dev/shm/big > /dev/shm/sum",
      )
      const pid = await machine("dev")
      fill()
      const refused = await requests.stop("dev")
      // The guest cannot write out what it has, so it waits for space; or only its memory did not fit, and it goes on.
      expect([refused.status, JSON.stringify(refused.body)]).toEqual([
        503,
        expect.stringMatching(/the host's disk is (nearly )?full/),
      ])
      expect(await machine("dev")).toBe(pid)
      expect(
        readdirSync(join(own.dataDir, "sandboxes", await idOf("dev"))).filter((name) =>
          name.startsWith("snapshot"),
        ),
      ).toEqual([])
      free()
      expect(await requests.output("dev", "cat /dev/shm/nonce; sha256sum -c /dev/shm/sum")).toBe(
        "dev\n/dev/shm/big: OK\n",
      )
      expect(await machine("dev")).toBe(pid)
      expect(await requests.stop("dev")).toMatchObject({ status: 200 })
      expect(await requests.output("dev", "cat /dev/shm/nonce; sha256sum -c /dev/shm/sum")).toBe(
        "dev\n/dev/shm/big: OK\n",
      )
    })
  }, 180_000)

  test("full: a create says so and leaves nothing, a running sandbox and the daemon go on", async () => {
    await onSmallDisk(64, async ({ fill, free }) => {
      await mark("dev")
      fill()
      const refused = await requests.create("late")
      expect([refused.status, JSON.stringify(refused.body)]).toEqual([
        503,
        expect.stringContaining("disk is full"),
      ])
      expect((await requests.list()).map(({ name }) => name)).toEqual(["dev"])
      expect(await requests.leftovers()).toEqual(["directory filler"])
      expect(await requests.output("dev", "cat /dev/shm/nonce")).toBe("dev\n")
      free()
      expect((await requests.create("late")).status).toBe(201)
    })
  }, 180_000)
})
