/** Commands of images, tasks and registries, against the real application on a fake host. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { Task } from "@bhatti/contract/task"
import { findCredential } from "../../src/cli/registry-credentials.ts"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"

const ref = "registry.example/app:1"
let daemon: Daemon
let home: string
beforeEach(async () => {
  daemon = await Daemon.start()
  home = mkdtempSync("/tmp/bhatti-cli-images-")
})
afterEach(async () => {
  rmSync(home, { recursive: true })
  await daemon[Symbol.asyncDispose]()
})

const run = (args: string[], options: { stdin?: string } = {}) =>
  bhatti(args, { daemon, env: { HOME: home }, ...options })
const tasks = async () => Task.array().parse((await daemon.call("GET", "/tasks")).body)

describe("image pull", () => {
  test("says each step on standard error and the image on standard output", async () => {
    const ran = await run(["image", "pull", ref])
    expect(ran.stdout).toMatch(/^image\/registry\.example\/app:1 pulled \(sha256:[0-9a-f]{12}\) in \d/)
    expect(ran).toMatchObject({ exitCode: 0 })
    const quiet = await run(["image", "pull", "-q", "--name", "app", ref])
    expect(quiet).toEqual({ stdout: "app\n", stderr: "", exitCode: 0 })
    const json = await run(["image", "pull", "--json", ref])
    expect(Task.parse(JSON.parse(json.stdout))).toMatchObject({ status: "done", result: { image: ref } })
    expect(daemon.bodies("POST /images/pull")).toContainEqual({ ref, name: "app", prepare: true })
  })

  test("detached prints the task, which task wait waits for", async () => {
    const gate = Promise.withResolvers<void>()
    daemon.host.pulls.gate = gate.promise
    const { stdout } = await run(["image", "pull", "--detach", ref])
    const id = stdout.trim()
    expect((await run(["task", "list"])).stdout).toContain(id)
    const waiting = run(["task", "wait", id])
    gate.resolve()
    expect(await waiting).toMatchObject({ stdout: `image/${ref} is ready\n`, exitCode: 0 })
  })

  test("a task that failed is listed with its reason", async () => {
    daemon.host.pulls.refusal = new AppError("unavailable", "the registry broke off")
    expect((await run(["image", "pull", ref])).exitCode).toBe(1)
    expect((await run(["task", "list"])).stdout).toMatch(/REASON\n.* failed .* the registry broke off$/m)
  })

  test("is cancelled by Ctrl-C, which leaves no image", async () => {
    daemon.host.pulls.gate = new Promise(() => {})
    const child = Bun.spawn([...program, "image", "pull", ref], {
      env: environment(daemon, { HOME: home }),
      stdout: "pipe",
      stderr: "pipe",
    })
    const stderr = child.stderr.text()
    await until("it is asked for", () => daemon.host.pulls.asked.length > 0)
    await until("it follows the task", () => daemon.sent.some(({ path }) => path.endsWith("/events")))
    child.kill("SIGINT")
    expect(await child.exited).toBe(130)
    expect(await stderr).toContain("cancelling")
    expect(await tasks()).toMatchObject([{ status: "cancelled" }])
    expect((await run(["image", "list", "-q"])).stdout).not.toContain(ref)
  })

  test("that fails tells the daemon's reason and its next step", async () => {
    daemon.host.pulls.refusal = new AppError("forbidden", "the registry does not let you", { hint: "log in" })
    const ran = await run(["image", "pull", ref])
    expect(ran.stderr).toContain("bhatti: the registry does not let you\n  log in\n")
    expect(ran).toMatchObject({ stdout: "", exitCode: 1 })
    const cancelled = await run(["task", "cancel", (await tasks())[0]?.id ?? ""])
    expect(cancelled.stdout).toContain("failed")
  })

  test("sends this machine's credential for that registry alone, or the one on standard input", async () => {
    mkdirSync(join(home, ".docker"))
    const auth = Buffer.from("me:of-docker").toString("base64")
    writeFileSync(
      join(home, ".docker/config.json"),
      JSON.stringify({ auths: { "registry.example": { auth } } }),
    )
    await run(["image", "pull", ref])
    await run(["image", "pull", "other.example/app"])
    await run(["image", "pull", "--auth-stdin", ref], { stdin: "you:typed\n" })
    expect(daemon.host.pulls.asked.map(({ credential }) => credential)).toEqual([
      { username: "me", password: "of-docker" },
      undefined,
      { username: "you", password: "typed" },
    ])
    daemon.core.settings.images.defaultRegistry = "registry.example"
    await run(["image", "pull", "app"])
    expect(daemon.host.pulls.asked.at(-1)?.credential).toEqual({ username: "me", password: "of-docker" })
    const bad = await run(["image", "pull", "--auth-stdin", ref], { stdin: "no colon" })
    expect(bad).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("USER:TOKEN") })
  })
})

test("a pull goes on without a credential if the helper program is not installed, and says so in a line", async () => {
  mkdirSync(join(home, ".docker"))
  writeFileSync(join(home, ".docker/config.json"), JSON.stringify({ credsStore: "missing" }))
  const ran = await run(["image", "pull", "-q", "--name", "app", ref])
  expect(ran).toMatchObject({ stdout: "app\n", exitCode: 0 })
  expect(ran.stderr).toMatch(/^[^\n]*docker-credential-missing[^\n]*\n$/)
  expect(daemon.host.pulls.asked.at(-1)?.credential).toBeUndefined()
})

describe("credentials", () => {
  const told: string[] = []
  const tell = async (line: string) => void told.push(line)
  beforeEach(() => {
    told.length = 0
  })
  const write = (path: string, content: unknown) => {
    mkdirSync(join(home, path, ".."), { recursive: true })
    writeFileSync(join(home, path), JSON.stringify(content))
  }
  const basic = (user: string, password: string) => ({
    auth: Buffer.from(`${user}:${password}`).toString("base64"),
  })

  test("come from the files of Podman and Docker, keys with a scheme and a path included", async () => {
    write(".docker/config.json", {
      auths: {
        "https://one.example/v1/": basic("a", "1"),
        "two.example:5000": basic("b", "2:3"),
        "three.example": {},
      },
    })
    write(".config/containers/auth.json", { auths: { "one.example": basic("podman", "4") } })
    const find = (host: string, more = {}) => findCredential(host, tell, { HOME: home, ...more })
    expect(await find("one.example")).toEqual({ username: "podman", password: "4" })
    expect(await find("two.example:5000")).toEqual({ username: "b", password: "2:3" })
    expect(await find("two.example")).toBeUndefined()
    expect(await find("three.example")).toBeUndefined()
    write("elsewhere/auth.json", { auths: { "two.example:5000": basic("c", "5") } })
    const REGISTRY_AUTH_FILE = join(home, "elsewhere/auth.json")
    expect(await find("two.example:5000", { REGISTRY_AUTH_FILE })).toEqual({ username: "c", password: "5" })
  })

  test("of Docker Hub are found under the name that docker login gives it, in files and from helpers", async () => {
    const find = async (place: string, more = {}) =>
      await findCredential(place, tell, { HOME: home, ...more })
    write(".docker/config.json", { auths: { "https://index.docker.io/v1/": basic("hub", "1") } })
    for (const place of ["docker.io/team/app", "docker.io", "index.docker.io/team/app"])
      expect(await find(place)).toEqual({ username: "hub", password: "1" })
    expect(await find("registry.example/team/app")).toBeUndefined()
    const script = `#!/bin/sh\nread -r server || true\nprintf '{"Username":"u","Secret":"%s"}' "$server"\n`
    writeFileSync(join(home, "docker-credential-hub"), script)
    chmodSync(join(home, "docker-credential-hub"), 0o755)
    const PATH = `${home}:${process.env["PATH"]}`
    for (const file of [{ credsStore: "hub" }, { credHelpers: { "index.docker.io": "hub" } }]) {
      write(".docker/config.json", file)
      const found = await find("docker.io/team/app", { PATH })
      expect(found).toEqual({ username: "u", password: "https://index.docker.io/v1/" })
    }
  })

  test("of a part of a registry are for its repositories alone", async () => {
    write(".config/containers/auth.json", {
      auths: {
        "one.example/team-a": basic("a", "1"),
        "one.example/team-b": basic("b", "2"),
        "one.example/team-b/app": basic("c", "3"),
      },
    })
    const find = async (place: string) => (await findCredential(place, tell, { HOME: home }))?.username
    expect(await find("one.example/team-b/tool")).toBe("b")
    expect(await find("one.example/team-b/app")).toBe("c")
    expect(await find("one.example/team-bee")).toBeUndefined()
    expect(await find("one.example")).toBeUndefined()
  })

  test("come from helper programs, which get the host on standard input", async () => {
    const helper = join(home, "docker-credential-test")
    writeFileSync(
      helper,
      `#!/bin/sh\n[ "$1" = get ] || exit 1\nread -r host || true\n[ "$host" = one.example ] || exit 1\nprintf '{"Username":"u","Secret":"s-%s"}' "$host"\n`,
    )
    chmodSync(helper, 0o755)
    const PATH = `${home}:${process.env["PATH"]}`
    write(".docker/config.json", {
      credHelpers: { "one.example": "test", "two.example": "missing" },
      credsStore: "test",
    })
    const find = (host: string) => findCredential(host, tell, { HOME: home, PATH })
    expect(await find("one.example")).toEqual({ username: "u", password: "s-one.example" })
    expect(await find("three.example")).toBeUndefined()
    expect(await find("two.example")).toBeUndefined()
    expect(told).toEqual([expect.stringContaining("docker-credential-missing")])
    write(".docker/config.json", { credHelpers: { "one.example": "../evil" } })
    await expect(find("one.example")).rejects.toMatchObject({ code: "invalid" })
  })
})

test("images are listed, shown, named again, and deleted", async () => {
  await run(["image", "pull", "-q", "--name", "app", ref])
  expect((await run(["image", "list", "-q"])).stdout).toBe("app\nworkspace\n")
  expect((await run(["image", "inspect", "app"])).stdout).toMatch(/reference +registry\.example\/app:1\n/)
  expect((await run(["image", "tag", "app", "app:stable"])).stdout).toBe("image/app:stable tagged\n")
  expect((await run(["create", "--name", "dev", "--image", "app:stable"])).exitCode).toBe(0)
  const inUse = await run(["image", "delete", "app:stable"])
  expect(inUse).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("needed by sandbox dev") })
  const pruned = await run(["image", "prune"])
  expect(pruned).toMatchObject({ stdout: "image/app deleted\n", stderr: "5 MB freed\n" })
  const missing = await run(["image", "delete", "app", "nothing"])
  expect(missing).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("bhatti image list") })
})

test("an archive is sent from a file or standard input", async () => {
  writeFileSync(join(home, "root.tar"), "a tar")
  const path = join(home, "root.tar")
  expect((await run(["image", "import", "--name", "root", path])).stdout).toMatch(/^image\/root imported in/)
  const again = await run(["image", "import", "--name", "root", path])
  expect(again.stderr).toMatch(/^it replaces the image root \(sha256:[0-9a-f]{12}\); sandboxes keep/m)
  const piped = await run(["image", "import", "-q", "--name", "piped", "-"], { stdin: "other" })
  expect(piped).toEqual({ stdout: "piped\n", stderr: "", exitCode: 0 })
  const missing = await run(["image", "import", "--name", "x", join(home, "none")])
  expect(missing).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("cannot read") })
})

test("a login is stored from standard input, listed without its password, and deleted", async () => {
  const stored = await run(["registry", "login", "--username", "me", "registry.example"], {
    stdin: "hidden-1\n",
  })
  expect(stored).toEqual({ stdout: "registry/registry.example logged in as me\n", stderr: "", exitCode: 0 })
  const listed = await run(["registry", "list"])
  expect(listed.stdout).toContain("registry.example  me")
  expect(listed.stdout).not.toContain("hidden-1")
  expect((await run(["registry", "logout", "registry.example"])).exitCode).toBe(0)
  expect((await run(["registry", "logout", "registry.example"])).exitCode).toBe(1)
})

describe("an image of the host that is not installed", () => {
  test("is listed, made by the first create, and there for the next", async () => {
    expect((await run(["image", "list"])).stdout).toMatch(/^docker +host +not installed/m)
    const made = await run(["create", "--name", "dev", "--image", "docker"])
    expect(made).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("sandbox/dev created") })
    expect(made.stderr).toContain("image docker is made first")
    expect((await run(["image", "list"])).stdout).toMatch(/^docker +host +ready/m)
    const again = await run(["create", "--name", "again", "--image", "docker"])
    expect(again).toMatchObject({ exitCode: 0, stderr: "" })
    expect(daemon.host.installs).toEqual(["docker"])
  })

  test("is not made with --pull never, nor where only the operator installs images", async () => {
    const never = await run(["create", "--image", "docker", "--pull", "never"])
    expect(never.stderr).toContain("sudo bhatti init --image docker")
    daemon.core.settings.images.areMadeAtNeed = false
    const refused = await run(["create", "--image", "docker"])
    expect([refused.exitCode, refused.stderr]).toEqual([1, never.stderr])
    expect((await run(["image", "install", "docker"])).stderr).toContain("only the host's operator")
    expect(daemon.host.installs).toEqual([])
  })

  test("is installed by name, and once", async () => {
    expect((await run(["image", "install", "docker"])).stdout).toMatch(/^image\/docker installed in /)
    expect((await run(["image", "install", "docker"])).stdout).toBe(
      "image/docker unchanged (already installed)\n",
    )
    expect(await run(["image", "install", "-q", "docker"])).toEqual({
      stdout: "docker\n",
      stderr: "",
      exitCode: 0,
    })
  })
})

describe("image build", () => {
  const write = (name: string, text: string) => {
    const path = join(home, name)
    mkdirSync(join(path, ".."), { recursive: true })
    writeFileSync(path, text)
    return path
  }
  const context = (dockerfile: string) => {
    write("app/Dockerfile", dockerfile)
    return join(home, "app")
  }

  test("makes an image whose configuration is the Dockerfile's, and takes the same one from the cache", async () => {
    const path = context('ARG V=1\nFROM workspace\nENV A=$V B=2\nEXPOSE 80\nCMD ["x"]\nHEALTHCHECK NONE\n')
    const ran = await run(["image", "build", "-t", "app", "--build-arg", "UNUSED=1", path])
    expect(ran.stdout).toMatch(/^image\/app built in \d/)
    expect(ran.stderr).toContain("line 6: HEALTHCHECK is ignored: sandboxes have none\n")
    expect(ran.stderr).toContain("build argument UNUSED is not used\n")
    const shown = await daemon.call("GET", "/images/app")
    expect(shown.body).toMatchObject({
      config: { user: "lohar", cmd: ["x"], ports: [80], env: { A: "", B: "2" } },
    })
    const again = await run(["image", "build", "-q", "-t", "other", path])
    expect(again).toEqual({ stdout: "other\n", stderr: "", exitCode: 0 })
    const json = await run(["image", "build", "-t", "other", "--json", path])
    const task = Task.parse(JSON.parse(json.stdout))
    expect(task).toMatchObject({ status: "done", type: "image.build", result: { image: "other" } })
    expect(task.progress.output?.text).toContain("all steps are cached")
  })

  test("names the line of what is wrong, and says what a wrong use needs", async () => {
    const refused = await run(["image", "build", "-t", "app", context("FROM workspace\nONBUILD RUN x\n")])
    expect(refused.stderr).toContain("Dockerfile, line 2: ONBUILD is not supported")
    const missing = await run(["image", "build", "-t", "app", context("FROM workspace\nCOPY none /\n")])
    expect(missing.stderr).toContain(`Dockerfile, line 2: "none" is not in the build's directory`)
    expect((await run(["image", "build", "-t", "app", join(home, "nowhere")])).stderr).toContain(
      "is not a directory",
    )
    expect((await run(["image", "build", "-t", "app", home])).stderr).toContain("-f FILE names a Dockerfile")
    const secret = await run([
      "image",
      "build",
      "-t",
      "app",
      "--secret",
      "id=none_of_these",
      home,
      "-f",
      "/dev/null",
    ])
    expect(secret.stderr).toContain("there is no variable none_of_these")
    expect((await tasks()).every(({ status }) => status === "failed")).toBe(true)
  })

  test("reads the Dockerfile from standard input, sends what is not ignored, and goes on detached", async () => {
    write("app/.dockerignore", "*\n!sent\n")
    write("app/sent", "x")
    write("app/kept", "x")
    const path = context("FROM workspace\nCOPY kept /\n")
    const stdin = "FROM workspace\nLABEL from=stdin\n"
    const ran = await run(["image", "build", "-t", "app", "-f", "-", "--detach", path], { stdin })
    expect((await run(["task", "wait", ran.stdout.trim()])).exitCode).toBe(0)
    expect((await daemon.call("GET", "/images/app")).body).toMatchObject({
      config: { labels: { from: "stdin" } },
    })
    expect((await run(["image", "build", "-t", "app", path])).stderr).toContain('"kept" is not in')
  })

  test("of a recipe comes before the create, once for its content or its key", async () => {
    const file = write("recipe/Dockerfile", "FROM workspace\nLABEL a=1\n")
    expect((await run(["create", "--name", "one", "--recipe", file])).stdout).toContain("sandbox/one created")
    expect((await run(["create", "--name", "two", "--recipe", file])).exitCode).toBe(0)
    const builds = async () => (await daemon.call("GET", "/tasks")).body as unknown[]
    const names = async () =>
      ((await daemon.call("GET", "/sandboxes")).body as { image: string }[]).map(({ image }) => image)
    expect(new Set(await names()).size).toBe(1)
    expect((await names())[0]).toMatch(/^recipe-[0-9a-f]{16}$/)
    await run(["create", "--recipe", file, "--cache-key", "mine"])
    const before = await builds()
    await run(["create", "--recipe", file, "--cache-key", "mine"])
    expect([await builds(), (await names()).at(-1)]).toEqual([before, "recipe-mine"])
    expect((await run(["create", "--cache-key", "x"])).stderr).toContain("--cache-key needs --recipe")
    expect((await run(["create", "--recipe", file, "--image", "minimal"])).stderr).toContain(
      "--image is for a recipe that is a script",
    )
  })
})
