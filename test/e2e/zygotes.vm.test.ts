/**
 * The life of zygotes in the daemon: a template in use gets one, sandboxes are forked from it, and outlive it and the
 * daemon. Whatever is killed, nothing is left and nothing is lost.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { installWithPrograms } from "../support/made-image.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"
import { ready as isServing, type Said, start } from "../support/noting-server.ts"
import { Requests } from "../support/requests.ts"

const isRoot = process.getuid?.() === 0
const token = "of-the-test-alone"
let own: Installation
let requests: Requests
beforeAll(async () => {
  if (!isRoot) return
  own = await install({ pool: 2, config: `warm_after: 0\nforks: auto\nmetrics_token: ${token}\n` })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

/** The QEMU that holds this file, if one does. */
const holderOf = (path: string): number | undefined =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .find((pid) => {
      try {
        const fds = readdirSync(`/proc/${pid}/fd`)
        return fds.some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === path)
      } catch {
        return false
      }
    })
const zygotes = () => {
  const directory = join(own.dataDir, "zygotes")
  if (!existsSync(directory)) return []
  return readdirSync(directory).map((name) => join(directory, name))
}
const zygoteOf = (directory: string) => holderOf(join(directory, "disk.qcow2"))
const idOf = async (name: string) => (await requests.show(name))?.id ?? ""
const machine = async (name: string) =>
  holderOf(join(own.dataDir, "sandboxes", await idOf(name), "disk.qcow2"))
const from = async (name: string) => {
  const { body } = await requests.send("GET", `/events?sandbox=${name}&type=sandbox.created`)
  return (body as { meta: { from: string } }[]).at(-1)?.meta.from
}
const create = async (name: string) => {
  expect((await requests.create(name)).status).toBe(201)
  return from(name)
}
const readyCount = async () => {
  const reply = await fetch(`${own.url}/metrics`, { headers: { authorization: `Bearer ${token}` } })
  return Number(/^bhatti_zygotes_ready (\d+)$/m.exec(await reply.text())?.[1])
}
/** The process of a zygote, once machines are forked from each that there is. */
const ready = async (count?: number): Promise<number> => {
  let found: (number | undefined)[] = []
  await until(
    "zygotes serve",
    async () => {
      found = zygotes().map(zygoteOf)
      const wanted = count ?? Math.max(1, found.length)
      return !found.includes(undefined) && found.length === wanted && (await readyCount()) === wanted
    },
    { deadlineMs: 120_000 },
  )
  return found[0] ?? 0
}
/** Lines that differ in any two sandboxes, and the time. */
const identity = `cat /proc/sys/kernel/random/boot_id /etc/machine-id /proc/sys/kernel/random/uuid
  hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | awk '{ print $4 }'
  od -An -tx1 -N16 /dev/urandom; date +%s`

describe.skipIf(!isRoot)("zygotes", () => {
  test("a template in use gets one, and its sandboxes are forked, without a pool", async () => {
    const zygote = await ready()
    expect(zygote).toBeGreaterThan(0)
    expect(await create("one")).toBe("fork")
    expect(await create("two")).toBe("fork")
    const [one, two] = [await machine("one"), await machine("two")]
    expect(new Set([one, two, zygote]).size).toBe(3)
    await until(
      "no sandbox waits in the pool",
      () => readdirSync(join(own.dataDir, "sandboxes")).length === 2,
    )
    for (const name of ["one", "two"])
      expect(await requests.output(name, "hostname; echo $((6 * 7))")).toBe(`${name}\n42\n`)
    const uidOf = (pid: number | undefined) =>
      /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
    expect(new Set([uidOf(one), uidOf(two), uidOf(zygote)]).size).toBe(3)
  }, 180_000)

  test("ten at once have each an identity of its own, and so have copies of one of them", async () => {
    await ready()
    const made = [
      await requests.send("POST", "/sandboxes/batch", { name: "many", count: 10 }),
      await requests.send("POST", "/sandboxes/batch", { name: "copy", from: "many-1", count: 2 }),
    ]
    expect(made.map(({ status }) => status)).toEqual([201, 201])
    const names = (await requests.list()).map(({ name }) => name).filter((name) => /^(many|copy)-/.test(name))
    expect(names).toHaveLength(12)
    const hows = await Promise.all(names.map(from))
    expect(hows.toSorted()).toEqual([...Array(10).fill("fork"), "sandbox", "sandbox"])
    const found = await Promise.all(
      names.map(async (name) => (await requests.output(name, identity)).trim().split("\n")),
    )
    for (let line = 0; line < 7; line++) {
      const values = found.map((lines) => lines[line])
      expect([line, new Set(values).size, values.includes("")]).toEqual([line, 12, false])
    }
    for (const [, , , , , , , seconds] of found)
      expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(60)
    // As rootless containers do it, below what shows a copy its own boot.
    expect(await requests.output("copy-1", "unshare -Urpf --mount-proc sh -c 'echo $$'")).toBe("1\n")
    await Promise.all(names.map((name) => requests.destroy(name)))
  }, 180_000)

  test("kill -9 of the zygote: its sandboxes run on, the next create is a clone at worst, and another zygote serves", async () => {
    await requests.output("one", startCountingScript)
    process.kill(await ready(), "SIGKILL")
    expect(["fork", "template", "pool"]).toContain((await create("three")) ?? "")
    const before = Number(await requests.output("one", readCountScript))
    await until("it counts on", async () => Number(await requests.output("one", readCountScript)) > before)
    await ready()
    await requests.destroy("three")
  }, 180_000)

  test("kill -9 of the daemon: forked sandboxes are adopted each as itself, and the old zygote is gone", async () => {
    const zygote = await ready()
    const before = [await machine("one"), await machine("two")]
    await own.stopDaemon("SIGKILL")
    expect(existsSync(`/proc/${zygote}`)).toBe(true)
    await own.startDaemon()
    for (const name of ["one", "two"]) expect(await requests.output(name, "hostname")).toBe(`${name}\n`)
    expect([await machine("one"), await machine("two")]).toEqual(before)
    await until("the old zygote has ended", () => !existsSync(`/proc/${zygote}`))
    await ready()
  }, 180_000)

  test("kill -9 of the daemon and the zygote while sandboxes are created: each is whole or gone", async () => {
    for (const dies of ["zygote", "both"]) {
      const zygote = await ready()
      const names = Array.from({ length: 4 }, (_, index) => `burst-${dies}-${index}`)
      const creating = names.map((name) => requests.create(name).catch(() => undefined))
      await until("one of them has a directory", () => readdirSync(join(own.dataDir, "sandboxes")).length > 2)
      process.kill(zygote, "SIGKILL")
      if (dies === "both") await own.stopDaemon("SIGKILL")
      await Promise.all(creating)
      if (dies === "both") await own.startDaemon()
      const left = (await requests.list()).map(({ name }) => name)
      for (const name of names.filter((one) => left.includes(one))) {
        expect(await requests.output(name, "hostname")).toBe(`${name}\n`)
        await requests.destroy(name)
      }
      expect(await requests.output("one", "hostname")).toBe("one\n")
    }
    expect(await requests.leftovers()).toEqual([])
  }, 240_000)

  test("a zygote that hangs is ended, and the create that met it is a clone", async () => {
    const zygote = await ready()
    process.kill(zygote, "SIGSTOP")
    expect(await create("patient")).toBe("template")
    await until("the zygote has ended", () => !existsSync(`/proc/${zygote}`))
    expect(await requests.output("patient", "hostname")).toBe("patient\n")
    await requests.destroy("patient")
    await ready()
  }, 180_000)

  test("a forked sandbox stops, wakes with its memory, and is copied", async () => {
    await ready()
    await requests.output("two", "echo kept > /dev/shm/nonce; echo kept > /workspace/file; sync")
    expect((await requests.send("POST", "/sandboxes/two/stop")).status).toBe(200)
    expect(await requests.output("two", "cat /dev/shm/nonce /workspace/file")).toBe("kept\nkept\n")
    expect((await requests.send("POST", "/sandboxes", { name: "copy", from: "two" })).status).toBe(201)
    expect(await requests.output("copy", "hostname; cat /dev/shm/nonce")).toBe("copy\nkept\n")
    await requests.destroy("copy")
  }, 120_000)

  test("an image's start command runs at once in forked sandboxes, and not one instruction ran before they were themselves", async () => {
    await installWithPrograms(own.dataDir, "served", { start, ready: isServing })
    const made = async (name: string) => {
      expect((await requests.create(name, { image: "served" })).status).toBe(201)
      return from(name)
    }
    expect(await made("cloned")).toBe("template")
    await ready(2)
    const forked = ["served-1", "served-2", "served-3"]
    expect(await Promise.all(forked.map(made))).toEqual(forked.map(() => "fork"))
    const names = ["cloned", ...forked]
    const ask = (name: string) => requests.output(name, "curl -s localhost:8000/")
    const all = await Promise.all(names.map(async (name) => JSON.parse(await ask(name)) as Said))
    const distinct = (key: keyof Said) => new Set(all.map((one) => JSON.stringify(one[key]))).size
    expect([distinct("seed"), distinct("early"), distinct("last")]).toEqual([1, 1, 1])
    expect([distinct("fresh"), distinct("first")]).toEqual([4, 4])
    expect(all.map(({ first }) => first[0]?.[0])).toEqual(names)
    for (const [index, name] of names.entries()) {
      expect(Math.abs((all[index]?.first[0]?.[2] ?? 0) - Date.now() / 1000)).toBeLessThan(60)
      expect(await requests.output(name, "cat /run/noted")).toStartWith(`${name} `)
      await requests.destroy(name)
    }
  }, 300_000)

  test("a daemon that stops takes its zygotes with it, and nothing of theirs is left", async () => {
    await ready()
    const processes = zygotes().map(zygoteOf)
    await own.stopDaemon("SIGTERM")
    await until("they have ended", () => processes.every((pid) => !existsSync(`/proc/${pid}`)))
    expect(zygotes()).toEqual([])
    await own.startDaemon()
    for (const name of ["one", "two"]) {
      expect(await requests.output(name, "hostname")).toBe(`${name}\n`)
      await requests.destroy(name)
    }
    expect(await requests.leftovers()).toEqual([])
  }, 120_000)
})
