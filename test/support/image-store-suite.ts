/** The behaviour of a store of images, tasks and logins, whichever database is below it. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { ImageId, TaskId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Store } from "../../src/store/store.ts"
import type { Account, UserLimits } from "../../src/store/users.ts"
import { anImage } from "./made-records.ts"
import { aSandbox } from "./store-suite.ts"

const mebibyte = 1024 * 1024

export function imageStoreSuite(name: string, open: () => Promise<Store>): void {
  describe(`images in ${name}`, () => {
    let store: Store
    let users = 0
    beforeAll(async () => {
      store = await open()
    })
    afterAll(() => store.close())

    async function newUser(of: Partial<UserLimits> = {}): Promise<Account> {
      const { key } = await store.users.create({ name: `user-${++users}`, ...of })
      const account = await store.users.findByKey(key)
      if (!account) throw new Error("the new key is not valid")
      return account
    }

    test("an image is read as it was written, and is its owner's alone until it is shared", async () => {
      const [one, other, third] = [await newUser(), await newUser(), await newUser()]
      const put = await store.images.put(one.id, anImage("app"))
      expect(put).toMatchObject({ ...anImage("app"), userId: one.id, state: "preparing", isShared: false })
      await store.images.setReady(put.id)
      expect(await store.images.findUsable(one.id, "app")).toEqual({ ...put, state: "ready" })
      const sees = async (account: Account) => (await store.images.listUsable(account.id)).length
      expect([await sees(one), await sees(other)]).toEqual([1, 0])
      expect(await store.images.findUsable(other.id, put.id)).toBeUndefined()
      await store.images.share(put.id, [other.name])
      expect([await sees(other), await sees(third)]).toEqual([1, 0])
      expect(await store.images.listOf(other.id)).toEqual([])
      await expect(store.images.share(put.id, [third.name, "nobody"])).rejects.toMatchObject({
        code: "not_found",
      })
      expect(await sees(third)).toBe(0)
      await store.images.share(put.id, "everybody")
      expect([await sees(other), await sees(third)]).toEqual([1, 1])
      await store.images.unshare(put.id, "everybody")
      expect([await sees(other), await sees(third)]).toEqual([0, 0])
      await store.images.remove(put.id)
    })

    test("an account's own image of a name comes before one that is shared with it", async () => {
      const [one, other] = [await newUser(), await newUser()]
      const shared = await store.images.put(one.id, anImage("app"))
      await store.images.share(shared.id, "everybody")
      expect((await store.images.findUsable(other.id, "app"))?.id).toBe(shared.id)
      const own = await store.images.put(other.id, anImage("app"))
      expect((await store.images.findUsable(other.id, "app"))?.id).toBe(own.id)
      expect((await store.images.findUsable(other.id, shared.id))?.id).toBe(shared.id)
      await store.images.remove(shared.id)
    })

    test("a later image of the same name takes its place, with the same id", async () => {
      const account = await newUser()
      const first = await store.images.put(account.id, anImage("app"))
      await store.images.setReady(first.id)
      const later = await store.images.put(account.id, anImage("app", { diskHash: "fedcba9876543210" }))
      expect(later).toMatchObject({ id: first.id, diskHash: "fedcba9876543210", state: "preparing" })
      expect(await store.images.listOf(account.id)).toEqual([later])
      const copy = await store.images.copy(account.id, later, "stable")
      expect(copy).toMatchObject({ diskHash: later.diskHash, name: "stable" })
      await expect(store.images.copy(account.id, later, "stable")).rejects.toMatchObject({ code: "conflict" })
    })

    test("an image that was deleted meanwhile gets no sandbox and no further name", async () => {
      const account = await newUser()
      const image = await store.images.put(account.id, anImage("app"))
      await store.images.remove(image.id)
      const wanted = aSandbox("dev", { imageId: image.id, imageShownAs: "app" })
      const add = store.sandboxes.add(account, wanted, { isSlotInUse: () => false })
      await expect(add).rejects.toMatchObject({ code: "not_found", subject: { kind: "image", name: "app" } })
      const copy = store.images.copy(account.id, image, "stable")
      await expect(copy).rejects.toMatchObject({ code: "not_found" })
      expect(await store.images.listOf(account.id)).toEqual([])
    })

    test("an image that a sandbox or a snapshot was made from is not removed", async () => {
      const account = await newUser()
      const { id } = await store.images.put(account.id, anImage("app"))
      const wanted = aSandbox("dev", { imageId: id, imageShownAs: "app" })
      const sandbox = await store.sandboxes.add(account, wanted, { isSlotInUse: () => false })
      await store.sandboxes.setTemplate(sandbox.id, "template")
      const source = await store.sandboxes.get(sandbox.id)
      if (!source) throw new Error("the sandbox is gone")
      const snapshot = await store.snapshots.add(account, "kept", source, { neededMib: 1 })
      expect(await store.images.remove(id)).toBe(false)
      await store.sandboxes.remove(sandbox.id)
      expect(await store.images.dependants(id)).toEqual([
        { kind: "snapshot", userId: account.id, name: "kept" },
      ])
      expect(await store.images.remove(id)).toBe(false)
      await expect(store.users.remove(account.name)).rejects.toMatchObject({ code: "conflict" })
      await store.snapshots.remove(snapshot.id)
      await expect(store.users.remove(account.name)).rejects.toMatchObject({ code: "conflict" })
      expect(await store.images.remove(id)).toBe(true)
      await store.users.remove(account.name)
    })

    test("images count in the disk quota, and so does what a running task has reserved", async () => {
      const account = await newUser({ maxDiskMib: 100 })
      const task = await store.tasks.add(account.id, { kind: "image.pull", subject: "app" })
      await store.tasks.reserve(task, 60)
      const late = store.images.put(account.id, anImage("other", { bytes: 41 * mebibyte }))
      await expect(late).rejects.toMatchObject({ code: "limit_exceeded" })
      const mine = anImage("app", { bytes: 90 * mebibyte })
      await store.images.put(account.id, mine, { taskId: task.id })
      await expect(store.tasks.reserve(task, 11)).rejects.toMatchObject({ code: "limit_exceeded" })
      await store.images.put(account.id, { ...mine, bytes: 100 * mebibyte })
      expect((await store.users.find(account.name))?.diskUsedMib).toBe(100)
    })

    test("two images at once never share the last place of a quota", async () => {
      const account = await newUser({ maxDiskMib: 15 })
      const results = await Promise.allSettled(
        ["a", "b", "c"].map((one) => store.images.put(account.id, anImage(one))),
      )
      expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1)
      expect(await store.images.listOf(account.id)).toHaveLength(1)
    })

    test("a task is its owner's, and ends once", async () => {
      const [one, other] = [await newUser(), await newUser()]
      const { id } = await store.tasks.add(one.id, { kind: "image.pull", subject: "app" })
      expect(await store.tasks.find(other.id, id)).toBeUndefined()
      const progress = { step: "fetching", layers: [{ digest: "sha256:a", bytes: 1, total: 2 }] }
      expect(await store.tasks.setProgress(id, progress)).toBe(true)
      expect(await store.tasks.find(one.id, id)).toMatchObject({ state: "running", progress, endedAt: null })
      expect(await store.tasks.setCancelling(id)).toBe(true)
      expect(await store.tasks.setProgress(id, progress)).toBe(false)
      await store.tasks.end(id, { state: "cancelled" })
      expect(await store.tasks.setCancelling(id)).toBe(false)
      await store.tasks.end(id, { state: "done", result: {} })
      expect(await store.tasks.find(one.id, id)).toMatchObject({ state: "cancelled", result: null })
    })

    test("tasks that a dead daemon has left end as interrupted", async () => {
      const account = await newUser()
      const add = () => store.tasks.add(account.id, { kind: "image.pull", subject: "app" })
      const [running, cancelling, failed] = [await add(), await add(), await add()]
      await store.tasks.setCancelling(cancelling.id)
      const error = { code: "unavailable", message: "no", hint: null }
      await store.tasks.end(failed.id, { state: "failed", error })
      await store.tasks.interruptOnHost()
      const states = (await store.tasks.listOf(account.id)).map(({ id, state }) => [id, state])
      expect(states).toEqual([
        [running.id, "interrupted"],
        [cancelling.id, "interrupted"],
        [failed.id, "failed"],
      ])
    })

    test("running tasks are limited, and ended ones are kept within a bound", async () => {
      const account = await newUser()
      const add = () => store.tasks.add(account.id, { kind: "image.pull", subject: "app" })
      for (let count = 0; count < limits.tasksRunningMax; count++) await add()
      await expect(add()).rejects.toMatchObject({ code: "limit_exceeded" })
      await store.tasks.interruptOnHost()
      for (let count = 0; count < limits.tasksKept + 5; count++) {
        const { id } = await add()
        await store.tasks.end(id, { state: "cancelled" })
      }
      await add()
      expect(await store.tasks.listOf(account.id)).toHaveLength(limits.tasksKept + 1)
      await store.tasks.removeOldOnHost(Date.now() + (limits.taskDaysKept + 1) * 86_400_000)
      expect(await store.tasks.listOf(account.id)).toHaveLength(1)
    })

    test("a login at a registry is its owner's, and its password is shown nowhere", async () => {
      const [one, other] = [await newUser(), await newUser()]
      const credential = { username: "me", password: "s3cret" }
      await store.registryLogins.set(one.id, "registry.example", { ...credential, password: "old" })
      await store.registryLogins.set(one.id, "registry.example", credential)
      expect(await store.registryLogins.reveal(one.id, "registry.example")).toEqual(credential)
      expect(await store.registryLogins.reveal(other.id, "registry.example")).toBeUndefined()
      expect(JSON.stringify(await store.registryLogins.list(one.id))).not.toContain("s3cret")
      await store.registryLogins.remove(one.id, "registry.example")
      const again = store.registryLogins.remove(one.id, "registry.example")
      await expect(again).rejects.toMatchObject({ code: "not_found" })
    })

    test("ids have their form", async () => {
      const account = await newUser()
      const { id } = await store.images.put(account.id, anImage("app"))
      expect(ImageId.safeParse(id).success).toBe(true)
      const task = await store.tasks.add(account.id, { kind: "image.pull", subject: "app" })
      expect(TaskId.safeParse(task.id).success).toBe(true)
    })
  })
}
