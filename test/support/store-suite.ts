/** The behaviour of a store, whichever database is below it: a suite that runs on an opened, empty one. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import type { NewSandbox, SandboxRecord } from "../../src/store/sandboxes.ts"
import type { Store } from "../../src/store/store.ts"
import type { Account } from "../../src/store/users.ts"

const host = { isSlotInUse: () => false }

/** A sandbox to add. */
export function aSandbox(name: string, changes: Partial<NewSandbox> = {}): NewSandbox {
  return {
    name,
    imageName: "minimal",
    imageHash: "hash",
    imageId: null,
    imageShownAs: null,
    cpus: 1,
    memoryMib: 512,
    diskMib: 8192,
    usedMib: 1,
    env: {},
    secretNames: [],
    labels: {},
    keepHot: false,
    allowCold: true,
    netPolicy: { default: "public", allow_hosts: [], allow_cidrs: [] },
    warmAfterSec: null,
    coldAfterSec: null,
    ttlSec: null,
    onTtl: "pause",
    lifetime: null,
    description: null,
    bootScript: null,
    startCommand: null,
    readyCommand: null,
    services: [],
    imageConfig: null,
    initSystem: false,
    mainCommand: null,
    ...changes,
  }
}

export function storeSuite(name: string, open: () => Promise<Store>): void {
  describe(name, () => {
    let store: Store
    let users = 0
    beforeAll(async () => {
      store = await open()
    })
    afterAll(() => store.close())

    async function newUser(
      limits: Omit<Parameters<Store["users"]["create"]>[0], "name"> = {},
    ): Promise<Account> {
      const { key } = await store.users.create({ name: `user-${++users}`, ...limits })
      const account = await store.users.findByKey(key)
      if (!account) throw new Error("the new key is not valid")
      return account
    }
    const add = (account: Account, sandbox: string, changes: Partial<NewSandbox> = {}) =>
      store.sandboxes.add(account, aSandbox(sandbox, changes), host)
    async function addWithDisk(account: Account, sandbox: string): Promise<SandboxRecord> {
      const { id } = await add(account, sandbox)
      await store.sandboxes.setTemplate(id, "template")
      const record = await store.sandboxes.get(id)
      if (!record) throw new Error("the sandbox is gone")
      return record
    }

    test("a user's name is unique, and a rotated key replaces the old one", async () => {
      const { user, key } = await store.users.create({ name: "once" })
      await expect(store.users.create({ name: "once" })).rejects.toMatchObject({ code: "conflict" })
      const rotated = await store.users.rotateKey("once")
      expect(await store.users.findByKey(key)).toBeUndefined()
      expect(await store.users.findByKey(rotated.key)).toMatchObject({ id: user.id, name: "once" })
    })

    test("an edit of a user changes the given limits only", async () => {
      const account = await newUser({ maxCpus: 3 })
      await Promise.all([
        store.users.edit(account.name, { maxSandboxes: 7 }),
        store.users.edit(account.name, { maxMemoryMib: 1024 }),
      ])
      expect(await store.users.find(account.name)).toMatchObject({
        maxSandboxes: 7,
        maxCpus: 3,
        maxMemoryMib: 1024,
      })
      await expect(store.users.edit("nobody", {})).rejects.toMatchObject({ code: "not_found" })
    })

    test("a user with sandboxes or snapshots is not removed", async () => {
      const account = await newUser()
      const source = await addWithDisk(account, "dev")
      const { id } = await store.snapshots.add(account, "snap", source, { neededMib: 1 })
      await expect(store.users.remove(account.name)).rejects.toMatchObject({ code: "conflict" })
      await store.sandboxes.remove(source.id)
      await expect(store.users.remove(account.name)).rejects.toMatchObject({ code: "conflict" })
      await store.snapshots.remove(id)
      await store.users.remove(account.name)
      await expect(add(account, "late")).rejects.toMatchObject({ code: "unauthenticated" })
    })

    test("a sandbox's name is unique for its user, and only for them", async () => {
      const [one, other] = [await newUser(), await newUser()]
      const { id } = await add(one, "dev")
      await expect(add(one, "dev")).rejects.toMatchObject({ code: "conflict" })
      await add(other, "dev")
      expect((await store.sandboxes.find(one, "dev"))?.id).toBe(id)
      expect(await store.sandboxes.find(other, id)).toBeUndefined()
      const { name: _, ...settings } = aSandbox("dev")
      await add(one, "more")
      await expect(store.sandboxes.edit(id, { ...settings, name: "more" })).rejects.toMatchObject({
        code: "conflict",
      })
    })

    test("a sandbox is read as it was written", async () => {
      const account = await newUser()
      const wanted = aSandbox("dev", {
        env: { A: "é", B: "" },
        labels: { team: "x" },
        secretNames: ["TOKEN"],
        keepHot: true,
        allowCold: false,
        netPolicy: { default: "deny", allow_hosts: ["example.com"], allow_cidrs: [] },
        warmAfterSec: 1.5,
        coldAfterSec: 0,
        bootScript: "true",
      })
      const added = await store.sandboxes.add(account, wanted, host)
      expect(added).toMatchObject({ ...wanted, state: { kind: "creating" }, templateId: null })
      expect(await store.sandboxes.get(added.id)).toEqual(added)
      const state = { kind: "cold", hasSnapshot: true, reason: null } as const
      await store.sandboxes.setState(added.id, state)
      await store.sandboxes.setBootReason(added.id, "why")
      await store.sandboxes.setAddress(added.id, "10.0.0.2")
      expect(await store.sandboxes.get(added.id)).toEqual({
        ...added,
        state,
        bootReason: "why",
        address: "10.0.0.2",
      })
    })

    test("the sandboxes of a user are listed in the order in which they were made", async () => {
      const account = await newUser({ maxSandboxes: 20 })
      const names = ["b", "c", "a", ...Array.from({ length: 9 }, (_, index) => `${9 - index}`)]
      await add(await newUser(), "other")
      for (const one of names) await add(account, one)
      expect((await store.sandboxes.listOf(account)).map(({ name }) => name)).toEqual(names)
    })

    test("slots are the lowest that neither the store nor the host uses", async () => {
      const account = await newUser()
      const first = await add(account, "one")
      const second = await add(account, "two")
      await store.sandboxes.remove(first.id)
      expect((await add(account, "three")).slot).toBe(first.slot)
      const isSlotInUse = (slot: number) => [second.slot + 1, second.slot + 2].includes(slot)
      const next = await store.sandboxes.add(account, aSandbox("four"), { isSlotInUse })
      expect(next.slot).toBe(second.slot + 3)
    })

    test("of many creates at once, exactly as many succeed as the limit allows", async () => {
      const account = await newUser({ maxSandboxes: 5 })
      const names = Array.from({ length: 20 }, (_, index) => `dev-${index}`)
      const outcomes = await Promise.allSettled(names.map((one) => add(account, one)))
      expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(5)
      for (const outcome of outcomes)
        if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "limit_exceeded" })
    })

    test("sandboxes and snapshots share the user's disk quota", async () => {
      const account = await newUser({ maxDiskMib: 100 })
      const source = await addWithDisk(account, "dev")
      await store.diskUse.setUsed(source.id, 50)
      await store.snapshots.add(account, "snap", source, { neededMib: 40 })
      await expect(add(account, "more", { usedMib: 11 })).rejects.toMatchObject({ code: "limit_exceeded" })
      await expect(store.snapshots.add(account, "again", source, { neededMib: 11 })).rejects.toMatchObject({
        code: "limit_exceeded",
      })
      await add(account, "more", { usedMib: 10 })
      expect(await store.diskUse.quotasOf([account.id])).toContainEqual({
        userId: account.id,
        ...{ maxMib: 100, snapshotsMib: 40, imagesMib: 0, templatesMib: 0 },
      })
    })

    test("templates that a user alone uses count in the user's disk quota", async () => {
      const account = await newUser({ maxDiskMib: 100 })
      const other = await newUser({ maxDiskMib: 100 })
      const own = { owner: account.id, mib: 60 }
      await store.templateUse.setOnHost([
        { id: "t1", ...own },
        { id: "t2", owner: "usr_ffffffff", mib: 10 },
      ])
      await expect(add(account, "dev", { usedMib: 41 })).rejects.toMatchObject({ code: "limit_exceeded" })
      await expect(store.templateUse.check(account.id, 41)).rejects.toMatchObject({ code: "limit_exceeded" })
      await store.templateUse.check(account.id, 40)
      await store.templateUse.check(other.id, 100)
      expect(await store.diskUse.quotasOf([account.id])).toMatchObject([{ templatesMib: 60 }])
      await store.templateUse.setOnHost([{ id: "t1", ...own, mib: 110 }])
      expect(await store.templateUse.overQuota([account.id, other.id])).toEqual([account.id])
      await store.templateUse.setOnHost([])
      expect(await store.templateUse.overQuota([account.id])).toEqual([])
    })

    test("a batch is added as a whole or not at all", async () => {
      const account = await newUser({ maxSandboxes: 3 })
      await add(account, "dev")
      const batch = (...names: string[]) =>
        store.sandboxes.addAll(
          account,
          names.map((one) => ({ input: aSandbox(one) })),
          host,
        )
      await expect(batch("a", "b", "c")).rejects.toMatchObject({ code: "limit_exceeded" })
      await expect(batch("a", "dev")).rejects.toMatchObject({ code: "conflict" })
      expect(await store.sandboxes.listOf(account)).toHaveLength(1)
      const records = await batch("a", "b")
      const areInBatch = async () => (await store.sandboxes.listOf(account)).map(({ isInBatch }) => isInBatch)
      expect(records.map(({ isInBatch }) => isInBatch)).toEqual([true, true])
      expect(await areInBatch()).toEqual([false, true, true])
      await store.sandboxes.setBatchDone(records)
      expect(await areInBatch()).toEqual([false, false, false])
    })

    test("a pooled sandbox belongs to nobody until it is claimed, and is claimed once", async () => {
      const account = await newUser({ maxSandboxes: 1 })
      const { id, slot } = await store.sandboxes.addPooled(host)
      const other = await store.sandboxes.addPooled(host)
      expect(await store.sandboxes.get(id)).toBeUndefined()
      expect(await store.sandboxes.listPooledOnHost()).toContain(id)
      expect(await store.sandboxes.claim(id, account, aSandbox("dev"))).toMatchObject({ name: "dev", slot })
      expect(await store.sandboxes.listPooledOnHost()).not.toContain(id)
      await expect(store.sandboxes.claim(other.id, account, aSandbox("more"))).rejects.toMatchObject({
        code: "limit_exceeded",
      })
      await expect(store.sandboxes.claim(id, await newUser(), aSandbox("dev"))).rejects.toThrow()
      expect((await store.sandboxes.get(id))?.userId).toBe(account.id)
      await store.sandboxes.remove(other.id)
    })

    test("a secret is replaced even at the limit, and revealed to its user only", async () => {
      const [one, other] = [await newUser(), await newUser()]
      await store.secrets.set(one.id, "TOKEN", "old")
      for (let count = 1; count < limits.secretsMax; count++) await store.secrets.set(one.id, `S${count}`, "")
      await expect(store.secrets.set(one.id, "LAST", "x")).rejects.toMatchObject({ code: "limit_exceeded" })
      await store.secrets.set(one.id, "TOKEN", "new")
      expect(await store.secrets.reveal(one.id, ["TOKEN"])).toEqual({ TOKEN: "new" })
      await expect(store.secrets.reveal(other.id, ["TOKEN"])).rejects.toMatchObject({ code: "not_found" })
      await expect(store.secrets.remove(other.id, "TOKEN")).rejects.toMatchObject({ code: "not_found" })
      await store.secrets.remove(one.id, "TOKEN")
      expect(await store.secrets.list(one.id)).toHaveLength(limits.secretsMax - 1)
    })

    test("an alias leads to one port, a port has several, and their number is limited", async () => {
      const account = await newUser()
      const [{ id: sandboxId }, { id: other }] = [await add(account, "dev"), await add(account, "more")]
      const publish = (alias: string, port = 80, id = sandboxId) =>
        store.publishedPorts.add({ sandboxId: id, port, alias })
      expect((await publish("suite-0")).isNew).toBe(true)
      expect((await publish("suite-0")).isNew).toBe(false)
      await expect(publish("suite-0", 81)).rejects.toMatchObject({ code: "conflict" })
      await expect(publish("suite-0", 80, other)).rejects.toMatchObject({ code: "conflict" })
      const first = await store.publishedPorts.addFirst({ sandboxId, port: 80, alias: "suite-x" })
      expect(first).toMatchObject({ isNew: false, record: { alias: "suite-0" } })
      for (let count = 1; count < limits.publishedPortsMax; count++) await publish(`suite-${count}`)
      const late = store.publishedPorts.addFirst({ sandboxId, port: 81, alias: "suite-x" })
      await expect(late).rejects.toMatchObject({ code: "limit_exceeded" })
      await expect(publish("suite-x")).rejects.toMatchObject({ code: "limit_exceeded" })
      expect((await publish("suite-1")).isNew).toBe(false)
      await store.sandboxes.remove(sandboxId)
      expect(await store.publishedPorts.findByAlias("suite-0")).toBeUndefined()
      await expect(publish("suite-0")).rejects.toMatchObject({ code: "not_found" })
    })

    test("a snapshot reserves its name and a place until it is removed", async () => {
      const account = await newUser()
      const source = await addWithDisk(account, "dev")
      const take = (snapshot: string) => store.snapshots.add(account, snapshot, source, { neededMib: 1 })
      const { id } = await take("snap-0")
      await expect(take("snap-0")).rejects.toMatchObject({ code: "conflict" })
      await store.snapshots.setReady(id, { hasMemory: true, bytes: 5 })
      expect(await store.snapshots.get(id)).toMatchObject({ state: "ready", hasMemory: true, bytes: 5 })
      for (let count = 1; count < limits.snapshotsMax; count++) await take(`snap-${count}`)
      await store.snapshots.setDeleting(id)
      await expect(take("late")).rejects.toMatchObject({ code: "limit_exceeded" })
      await store.snapshots.remove(id)
      await take("late")
      const names = (await store.snapshots.listOf(account.id)).map(({ name }) => name)
      expect(names).toEqual([
        ...Array.from({ length: limits.snapshotsMax - 1 }, (_, index) => `snap-${index + 1}`),
        "late",
      ])
    })

    test("events are listed by owner, type, sandbox and time, and pruned per user", async () => {
      const event = (userId: string, type: string, sandboxName: string | null, minute: number) => ({
        id: Bun.randomUUIDv7(),
        at: new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString(),
        type,
        userId,
        sandboxId: null,
        sandboxName,
        meta: { minute },
      })
      await store.events.add([
        event("usr_e1", "exec.end", "dev", 1),
        event("usr_e1", "exec_end", "dev", 2),
        event("usr_e1", "exec.end", "other", 3),
        event("usr_e2", "exec.end", "dev", 4),
      ])
      const minutes = async (filter: Parameters<Store["events"]["list"]>[0], limit = 10) =>
        (await store.events.list(filter, limit)).map(({ meta }) => meta["minute"])
      expect(await minutes({ userId: "usr_e1" })).toEqual([1, 2, 3])
      expect(await minutes({ userId: "usr_e1" }, 2)).toEqual([2, 3])
      expect(await minutes({ userId: "usr_e1", type: "exec." })).toEqual([1, 3])
      expect(await minutes({ userId: "usr_e1", sandbox: "dev" })).toEqual([1, 2])
      expect(await minutes({ userId: "usr_e1", since: "2026-01-01T00:02:00.000Z" })).toEqual([2, 3])
      await store.events.prune(Date.UTC(2026, 0, 2), { keptMax: 1000, perUserMax: 2 })
      expect(await minutes({ userId: "usr_e1" })).toEqual([2, 3])
      expect(await minutes({ userId: "usr_e2" })).toEqual([4])
    })
  })
}
