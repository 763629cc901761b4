/**
 * Templates that nothing needs are given up when space runs out, images at once, and none that anything lies on, on a
 * fake host.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { StartedTask, Task } from "@bhatti/contract/task"
import { removeUnusedImages, removeUnusedTemplates } from "../../src/core/clean-up.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  own.core.settings.templateDiskMib = 150
})
afterEach(() => own[Symbol.asyncDispose]())

const left = async () => (await own.host.templates.measure()).map(({ id }) => id).sort()
const create = async (name: string, memory_mb: number) =>
  expect((await own.call("POST", "/sandboxes", { name, memory_mb })).status).toBe(201)

test("what sandboxes, snapshots and the default size lie on stays; the rest goes, and a create makes it again", async () => {
  await create("default", 512)
  await create("lived-in", 256)
  await create("kept", 384)
  await create("gone", 640)
  await own.call("POST", "/sandboxes/kept/checkpoint", { name: "snap" })
  for (const name of ["default", "kept", "gone"]) await own.call("DELETE", `/sandboxes/${name}`)
  expect(await left()).toHaveLength(4)
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toEqual(["template-1", "template-2", "template-3"])

  expect((await own.call("POST", "/snapshots/snap/resume", { name: "back" })).status).toBe(201)
  await own.call("DELETE", "/snapshots/snap")
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toHaveLength(3)
  await own.call("DELETE", "/sandboxes/back")
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toEqual(["template-1", "template-2"])
  await create("gone", 640)
  expect((await own.call("POST", "/sandboxes/lived-in/exec", { cmd: ["true"] })).status).toBe(200)
})

test("within the budget nothing is removed", async () => {
  own.core.settings.templateDiskMib = 10_000
  await create("one", 256)
  await own.call("DELETE", "/sandboxes/one")
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toHaveLength(1)
})

test("the template of what an image was before is removed by a prune with its disk, unless a sandbox lies on it", async () => {
  const pull = async (version: string) => {
    own.host.pulls.version = version
    const { body } = await own.call("POST", "/images/pull", { ref: "registry.example/app:1", name: "app" })
    const { task_id } = StartedTask.parse(body)
    await until("it is pulled", async () => {
      const { completed_at } = Task.parse((await own.call("GET", `/tasks/${task_id}`)).body)
      return completed_at !== null
    })
    expect((await own.call("POST", "/sandboxes", { name: `of-${version}`, image: "app" })).status).toBe(201)
  }
  for (const version of ["1", "2", "3"]) await pull(version)
  for (const name of ["of-2", "of-3"]) await own.call("DELETE", `/sandboxes/${name}`)
  expect(own.host.pulls.disks.size).toBe(3)
  await own.call("POST", "/images/prune")
  expect([own.host.pulls.disks.size, (await left()).length]).toEqual([2, 2])
  await own.call("DELETE", "/sandboxes/of-1")
  await own.call("POST", "/images/prune")
  expect([own.host.pulls.disks.size, await left()]).toEqual([0, []])
})

test("what was set aside keeps its template, and all are kept where that cannot be told", async () => {
  await create("one", 256)
  await own.call("DELETE", "/sandboxes/one")
  own.core.settings.templateDiskMib = 0
  own.host.templatesLainOn = undefined
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toHaveLength(1)
  own.host.templatesLainOn = await left()
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toHaveLength(1)
  own.host.templatesLainOn = []
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toEqual([])
})

test("one that was just asked for stays, though nothing says yet that it is needed", async () => {
  await create("one", 256)
  await own.call("DELETE", "/sandboxes/one")
  own.core.settings.templateDiskMib = 0
  own.host.templatesUsedMs = Date.now()
  await removeUnusedTemplates(own.core, Date.now())
  expect(await left()).toHaveLength(1)
})

test("images are kept as long as a template lies on them", async () => {
  await removeUnusedImages(own.core)
  expect(own.host.neededImages).toEqual([])
  await create("one", 256)
  await removeUnusedImages(own.core)
  expect(own.host.neededImages).toEqual(["image"])
})
