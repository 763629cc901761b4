/** Images that leave through the HTTP interface: exports and pushes, with the fake host's layers. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { StartedTask, Task } from "@bhatti/contract/task"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  const { body } = await own.call("POST", "/images/pull", { ref: "registry.example/app:1", name: "app" })
  const id = StartedTask.parse(body).task_id ?? ""
  await until("the image is here", async () => (await taskOf(id)).completed_at !== null)
})
afterEach(() => own[Symbol.asyncDispose]())

const taskOf = async (id: string) => Task.parse((await own.call("GET", `/tasks/${id}`)).body)
const push = async (body: Record<string, unknown>, name = "app") =>
  await own.call("POST", `/images/${name}/push`, body)

describe("an export", () => {
  test("is the archive's bytes, of an own image and of the host's", async () => {
    const bytesOf = async (name: string) => (await own.call("GET", `/images/${name}/export`)).text
    expect(await bytesOf("app")).toMatch(/^archive of app oci-/)
    expect(await bytesOf("workspace")).toBe("archive of workspace workspace")
    expect((await own.call("GET", "/images/nothing/export")).status).toBe(404)
    expect(own.core.pinnedDisks.size).toBe(0)
  })
})

describe("a push", () => {
  test("is a task that ends with the digest in the registry, and uses the credential of its request", async () => {
    const auth = { username: "u", password: "p" }
    const { status, body } = await push({ ref: "registry.example/app:2", auth })
    expect(status).toBe(202)
    const id = StartedTask.parse(body).task_id ?? ""
    await until("it has ended", async () => (await taskOf(id)).completed_at !== null)
    expect(await taskOf(id)).toMatchObject({
      type: "image.push",
      status: "done",
      result: { image: "app", digest: `sha256:${"d".repeat(64)}` },
    })
    expect(own.host.packs.pushed).toMatchObject([
      { to: { host: "registry.example", repository: "app", tag: "2", credential: auth } },
    ])
  })

  test("uses a stored login, and is cancelled with its task", async () => {
    await own.call("POST", "/registries", { host: "registry.example", username: "stored", password: "p" })
    own.host.packs.gate = new Promise(() => undefined)
    const id = StartedTask.parse((await push({ ref: "registry.example/app:3" })).body).task_id ?? ""
    await until("it pushes", () => own.host.packs.pushed.length === 1)
    expect(own.host.packs.pushed[0]?.to.credential?.username).toBe("stored")
    await own.call("DELETE", `/tasks/${id}`)
    expect(await taskOf(id)).toMatchObject({ status: "cancelled" })
    expect(own.core.pinnedDisks.size).toBe(0)
  })

  test("of no image, to a digest, or to a registry that is not allowed is refused", async () => {
    expect((await push({ ref: "registry.example/app:1" }, "nothing")).status).toBe(404)
    expect((await push({ ref: `registry.example/app@sha256:${"a".repeat(64)}` })).status).toBe(400)
    own.core.settings.images.allowedRegistries = ["other.example"]
    expect((await push({ ref: "registry.example/app:1" })).status).toBe(403)
  })
})

test.each(["export", "push"])(
  "the disk of an image that is deleted when its %s begins stays until it ends",
  async (what) => {
    const { host, core } = own
    const { freeMib } = host.disks
    const [disk] = [...host.pulls.disks.keys()]
    const gate = Promise.withResolvers<void>()
    host.packs.gate = gate.promise
    const kept: boolean[] = []
    // The question comes when the image is found, and before the work begins.
    host.disks.freeMib = async () => {
      host.disks.freeMib = freeMib
      expect((await own.call("DELETE", "/images/app")).status).toBe(200)
      kept.push(host.pulls.disks.has(disk ?? ""))
      return await freeMib()
    }
    if (what === "export")
      expect((await own.call("GET", "/images/app/export")).text).toMatch(/^archive of app oci-/)
    else {
      const id = StartedTask.parse((await push({ ref: "registry.example/app:2" })).body).task_id ?? ""
      gate.resolve()
      await until("it has ended", async () => (await taskOf(id)).completed_at !== null)
      expect((await taskOf(id)).status).toBe("done")
    }
    expect(kept).toEqual([true])
    expect(core.pinnedDisks.size).toBe(0)
  },
)
