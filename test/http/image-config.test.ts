/** The configuration that an image brings along: what the guest is told, the image's program and its port. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { ImageConfig } from "@bhatti/contract/image-config"
import type { Session } from "@bhatti/contract/session"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
})
afterEach(() => own[Symbol.asyncDispose]())

const config: ImageConfig = {
  user: "1001:0",
  workdir: "/app",
  env: { PATH: "/app/bin" },
  entrypoint: ["/app/serve"],
  cmd: ["--all"],
  ports: [8080],
  labels: { team: "web" },
}
const create = (name: string, more: object = {}) => own.call("POST", "/sandboxes", { name, ...more })
const sessions = async (name: string) =>
  (await own.call("GET", `/sandboxes/${name}/sessions`)).body as Session[]
const imagesTold = () => own.host.identities.map(({ image }) => image)

test("each guest of the image is told user, directory and variables: the template's, a clone's, a copy's, at a boot", async () => {
  const image = { user: "1001:0", workdir: "/app", env: { PATH: "/app/bin" } }
  own.host.imageConfig = config
  expect((await create("dev")).body).toMatchObject({ image_config: config, main: null })
  await create("copy", { from: "dev" })
  await own.call("POST", "/sandboxes/copy/restart")
  expect(imagesTold()).toEqual([image, image, image, image])
  own.host.identities.length = 0
  own.host.imageConfig = undefined
  expect((await create("plain")).body).toMatchObject({ image_config: null, main: null })
  expect(imagesTold().every((told) => told === undefined)).toBe(true)
})

test("an agent that does not know the configuration of images gets no sandbox of one", async () => {
  own.host.isAgentOld = true
  expect((await create("plain")).status).toBe(201)
  own.host.imageConfig = config
  const refused = await create("dev")
  expect(refused.status).toBe(503)
  expect((await own.call("GET", "/sandboxes")).body).toMatchObject([{ name: "plain" }])
})

test("the image's program is the session main, again at each boot; words replace its CMD", async () => {
  own.host.imageConfig = config
  await create("web", { run: [] })
  await create("other", { run: ["--one"] })
  await create("idle")
  const all = [{ name: "main", argv: ["/app/serve", "--all"], running: true }]
  expect(await sessions("web")).toMatchObject(all)
  expect(await sessions("other")).toMatchObject([{ argv: ["/app/serve", "--one"] }])
  expect(await sessions("idle")).toEqual([])
  await own.call("POST", "/sandboxes/web/restart")
  expect(await sessions("web")).toMatchObject(all)
  expect((await own.call("GET", "/sandboxes/web")).body).toMatchObject({ main: ["/app/serve", "--all"] })
})

test("an image without a program needs one to run, and there is one main program", async () => {
  own.host.imageConfig = { ...config, entrypoint: [], cmd: [] }
  expect((await create("web", { run: [] })).body).toMatchObject({ code: "invalid" })
  expect((await create("web", { run: ["serve"] })).body).toMatchObject({ main: ["serve"] })
  expect((await create("two", { run: ["serve"], start_command: "serve" })).body).toMatchObject({
    code: "invalid",
  })
  expect((await create("copy", { from: "web", run: [] })).body).toMatchObject({ code: "invalid" })
})

test("the image's only port is the default of publish", async () => {
  own.host.imageConfig = config
  await create("web")
  expect((await own.call("POST", "/sandboxes/web/publish", {})).body).toMatchObject({ port: 8080 })
  own.host.imageConfig = { ...config, ports: [80, 443] }
  await create("two")
  expect((await own.call("POST", "/sandboxes/two/publish", {})).body).toMatchObject({
    error: "which port? its image names several: 80, 443",
  })
  own.host.imageConfig = undefined
  await create("plain")
  expect((await own.call("POST", "/sandboxes/plain/publish", {})).status).toBe(400)
  expect((await own.call("POST", "/sandboxes/plain/publish", { port: 80 })).status).toBe(201)
})
