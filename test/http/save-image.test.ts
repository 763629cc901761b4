/** Images of sandboxes through the HTTP interface, with the fake host's layers. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { Image } from "@bhatti/contract/image"
import { StartedTask, Task } from "@bhatti/contract/task"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev", env: { TOKEN: "of the sandbox" } })
})
afterEach(() => own[Symbol.asyncDispose]())

const start = async (body: Record<string, unknown>) => {
  const answer = await own.call("POST", "/sandboxes/dev/save-image", body)
  expect([answer.status, answer.body]).toMatchObject([202, { status: "running" }])
  return StartedTask.parse(answer.body).task_id ?? ""
}
const taskOf = async (id: string) => Task.parse((await own.call("GET", `/tasks/${id}`)).body)
async function ended(id: string): Promise<Task> {
  await until("the task has ended", async () => (await taskOf(id)).completed_at !== null)
  return await taskOf(id)
}
const save = async (body: Record<string, unknown>) => ended(await start(body))
const images = async () =>
  Image.array()
    .parse((await own.call("GET", "/images")).body)
    .filter(({ id }) => id !== null)

describe("an image of a sandbox", () => {
  test("is a task of its own kind, and sandboxes are made from it", async () => {
    const task = await save({ name: "app:1" })
    expect(task).toMatchObject({ type: "image.save", status: "done", result: { image: "app:1" } })
    expect(await images()).toMatchObject([{ name: "app:1", reference: null, status: "ready" }])
    const created = await own.call("POST", "/sandboxes", { name: "copy", image: "app:1" })
    expect([created.status, created.body]).toMatchObject([201, { image: "app:1" }])
    expect(own.host.drafts.size).toBe(0)
  })

  test("keeps the configuration of its sandbox's image, but for the changes, and none of its variables", async () => {
    await save({
      name: "app",
      config: { env: { EDITOR: "vim" }, entrypoint: ["/bin/app"], workdir: "/srv" },
    })
    const [image] = await images()
    expect(image?.config).toMatchObject({ user: "lohar", workdir: "/srv", entrypoint: ["/bin/app"], cmd: [] })
    expect(Object.keys(image?.config?.env ?? {}).sort()).toEqual(["EDITOR", "LANG", "PATH"])
    await own.call("POST", "/sandboxes", { name: "next", image: "app" })
    const again = await own.call("POST", "/sandboxes/next/save-image", {
      name: "app2",
      config: { cmd: ["serve"] },
    })
    await ended(StartedTask.parse(again.body).task_id ?? "")
    const found = (await images()).find(({ name }) => name === "app2")
    expect(found?.config).toMatchObject({ entrypoint: ["/bin/app"], cmd: ["serve"], workdir: "/srv" })
    expect(found?.config?.env).toMatchObject({ EDITOR: "vim" })
  })

  test("of a stopped sandbox wakes it first, since its memory holds what no disk has", async () => {
    await own.call("POST", "/sandboxes/dev/stop")
    expect(await save({ name: "app" })).toMatchObject({ status: "done" })
    expect((await own.call("GET", "/sandboxes/dev")).body).toMatchObject({ status: "running" })
  })

  test("ends with its sandbox, with a cancel, and leaves no image and no draft", async () => {
    own.host.packs.gate = new Promise(() => undefined)
    const cancelled = await start({ name: "one" })
    await until("the layer is being made", () => own.host.packs.packed.length === 1)
    await own.call("DELETE", `/tasks/${cancelled}`)
    expect(await taskOf(cancelled)).toMatchObject({ status: "cancelled" })
    const orphaned = await start({ name: "two" })
    await until("the next layer is being made", () => own.host.packs.packed.length === 2)
    await own.call("DELETE", "/sandboxes/dev")
    expect(await ended(orphaned)).toMatchObject({ status: "failed" })
    expect(await images()).toEqual([])
    expect([own.host.pulls.disks.size, own.host.drafts.size]).toEqual([0, 0])
  })

  test("of another's sandbox, or with a name of the host's, is refused before anything begins", async () => {
    expect((await own.call("POST", "/sandboxes/nobody/save-image", { name: "app" })).status).toBe(404)
    expect((await own.call("POST", "/sandboxes/dev/save-image", { name: "workspace" })).status).toBe(409)
    expect((await own.call("POST", "/sandboxes/dev/save-image", { name: "a b" })).status).toBe(400)
    expect((await own.call("GET", "/tasks")).body).toEqual([])
  })
})
