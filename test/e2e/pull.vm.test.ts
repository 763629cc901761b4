/**
 * Images from real registries on loopback, one with TLS and a password and a plain one, and from archives: pulled,
 * booted, deleted, and pulled, saved, exported and pushed by a daemon that dies at every step.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import type { Image } from "@bhatti/contract/image"
import type { Task } from "@bhatti/contract/task"
import { isDiskName } from "../../src/lib/disk-names.ts"
import { type FailPoint, failPointFile } from "../support/failing-daemon.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { addBusybox } from "../support/made-image.ts"
import {
  type BuiltImage,
  buildImage,
  registryProgram,
  startRegistry,
  type TestRegistry,
  testLogin,
} from "../support/registry.ts"

if (registryProgram === undefined) console.log("skipped: docker-registry is not installed")
let own: Installation
let secured: TestRegistry
let plain: TestRegistry
let work: string
let image: BuiltImage

describe.skipIf(registryProgram === undefined)("images of others", () => {
  beforeAll(async () => {
    work = mkdtempSync("/tmp/bhatti-pull-")
    ;[secured, plain] = await Promise.all([
      startRegistry({ isSecured: true }),
      startRegistry({ isSecured: false }),
    ])
    const daemon = resolve(import.meta.dir, "../support/failing-daemon.ts")
    own = await install({
      serve: [process.execPath, daemon],
      config: `log_level: info
default_registry: ${plain.host}
registries:
  - { host: "${secured.host}", ca_file: ${secured.caFile} }
  - { host: "${plain.host}", insecure: true }
`,
    })
    addBusybox(own.dataDir, work, "tree")
    const busybox = readFileSync(join(work, "tree", "busybox"))
    image = await buildImage(join(work, "image"), {
      layers: [
        { "bin/": "", "bin/busybox": busybox, "bin/sh": busybox },
        { big: randomBytes(12 * 1024 * 1024), "hello.txt": "from the image\n" },
      ],
      config: { Env: ["PATH=/bin", "GREETING=hi"], Cmd: ["/bin/sh"] },
    })
    await secured.push(image, "app:1")
    await plain.push(image, "app:1")
    mkdirSync(join(dirname(own.dataDir), ".docker"))
    const auth = Buffer.from(`${testLogin.username}:${testLogin.password}`).toString("base64")
    const auths = { [secured.host]: { auth } }
    writeFileSync(join(dirname(own.dataDir), ".docker", "config.json"), JSON.stringify({ auths }))
  }, 600_000)
  afterAll(async () => {
    await own?.[Symbol.asyncDispose]()
    for (const registry of [secured, plain]) await registry?.[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  }, 120_000)

  const bhatti = async (...args: string[]) => {
    const ran = await own.bhatti(args)
    if (ran.exitCode !== 0)
      throw new Error(`bhatti ${args.join(" ")}: ${ran.stderr}\n${own.daemonLog().slice(-3000)}`)
    return ran
  }
  const jsonOf = async <T>(...args: string[]) => JSON.parse((await bhatti(...args, "--json")).stdout) as T
  const images = async () => (await jsonOf<Image[]>("image", "list")).filter(({ id }) => id !== null)
  const disks = () => readdirSync(join(own.dataDir, "images")).filter(isDiskName)
  const unfinished = () => {
    const tasks = join(own.dataDir, "registry", "tasks")
    return existsSync(tasks) ? readdirSync(tasks) : []
  }

  test("behind TLS and a password becomes sandboxes; its secrets are in no log and no file", async () => {
    const ref = `${secured.host}/app:1`
    await bhatti("image", "pull", ref)
    expect(await images()).toMatchObject([
      { name: ref, status: "ready", manifest_digest: image.manifestDigest },
    ])
    expect((await jsonOf<{ image: string }>("create", "--name", "dev", "--image", ref)).image).toBe(ref)
    const exec = ["exec", "dev", "--", "/bin/busybox"]
    expect((await bhatti(...exec, "cat", "/hello.txt")).stdout).toBe("from the image\n")
    const inUse = await own.bhatti(["image", "delete", "-y", ref])
    expect(inUse).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("sandbox dev") })
    const encoded = Buffer.from(`${testLogin.username}:${testLogin.password}`).toString("base64")
    for (const secret of [testLogin.password, encoded]) {
      expect(own.daemonLog()).not.toContain(secret)
      expect(Bun.spawnSync(["grep", "-rl", secret, own.dataDir]).stdout.toString()).toBe("")
    }
    await bhatti("destroy", "-y", "dev")
    await bhatti("image", "delete", "-y", ref)
    expect([await images(), disks(), unfinished()]).toEqual([[], [], []])
  }, 300_000)

  test("a second pull fetches no blob, and is quick by tag and by digest", async () => {
    await bhatti("image", "pull", "--no-prepare", "app:1")
    const before = plain.blobRequests()
    const times: number[] = []
    for (let round = 0; round < 5; round++) {
      const { ms } = await bhatti("image", "pull", "--no-prepare", "app:1")
      times.push(ms)
    }
    const pinned = `app@${image.manifestDigest}`
    await bhatti("image", "pull", "--no-prepare", pinned)
    const { ms } = await bhatti("image", "pull", pinned)
    console.log(`second pull: by tag ${times.map(Math.round)} ms, by digest ${Math.round(ms)} ms`)
    expect(plain.blobRequests()).toBe(before)
    expect(ms).toBeLessThan(300 * patience)
    expect(await bhatti("image", "prune", "-y")).toMatchObject({ stdout: expect.stringContaining("app:1") })
    expect(disks()).toEqual([])
  }, 180_000)

  test("from docker save and from a root file system become sandboxes too", async () => {
    const saved = join(work, "saved.tar")
    const copy = Bun.spawnSync([
      "skopeo",
      "copy",
      `oci:${image.layout}:image`,
      `docker-archive:${saved}:app:1`,
    ])
    expect(copy.exitCode).toBe(0)
    await bhatti("image", "import", "--no-prepare", "--name", "saved", saved)
    const [only] = await images()
    expect(only).toMatchObject({ name: "saved", reference: null, config: { env: { GREETING: "hi" } } })
    const exported = join(work, "exported.tar")
    await bhatti("image", "export", "saved", "-o", exported)
    await bhatti("image", "import", "--no-prepare", "--name", "again", exported)
    await bhatti("image", "push", "again", `${secured.host}/pushed:1`)
    await bhatti("image", "pull", "--no-prepare", "--name", "pulled", `${secured.host}/pushed:1`)
    const configs = new Set((await images()).map(({ config }) => JSON.stringify(config)))
    expect([(await images()).length, configs.size]).toEqual([3, 1])
    const root = join(work, "root")
    mkdirSync(join(root, "bin"), { recursive: true })
    Bun.spawnSync(["cp", join(work, "tree", "busybox"), join(root, "bin")])
    writeFileSync(join(root, "note"), "a root\n")
    const tar = join(work, "root.tar.gz")
    expect(Bun.spawnSync(["tar", "-C", root, "-czf", tar, "."]).exitCode).toBe(0)
    await bhatti("image", "import", "--name", "root", tar)
    await bhatti("create", "--name", "dev", "--image", "root")
    const { stdout } = await bhatti("exec", "dev", "--", "/bin/busybox", "cat", "/note")
    expect(stdout).toBe("a root\n")
    await bhatti("destroy", "-y", "dev")
    await bhatti("image", "prune", "-y")
    expect([disks(), unfinished()]).toEqual([[], []])
  }, 300_000)

  test("of a sandbox has its files, without its identity, and is made of a stopped one too", async () => {
    // The long form takes the default image, whose user is lohar: a disk of hundreds of megabytes.
    const long = process.env["BHATTI_TEST_LONG"] !== undefined
    await bhatti("image", "pull", "--no-prepare", "app:1")
    await bhatti(
      "create",
      "--name",
      "source",
      "--env",
      "TOKEN=of-the-source",
      ...(long ? [] : ["--image", "app:1"]),
    )
    const shell = (name: string, script: string) =>
      bhatti("exec", name, "--", "/bin/sh", "-c", `PATH=$PATH:/run/bhatti/kit/applets; cd /; ${script}`)
    await shell(
      "source",
      `mkdir -p $HOME/deep /tmp; cd $HOME; echo text > note; ln note second; echo old > /tmp/left
      echo gone > gone; sync; rm gone`,
    )
    // Its memory holds data that is on no disk yet.
    await shell("source", "echo late > $HOME/late")
    await bhatti("stop", "source")
    await bhatti("image", "save", "source", "--name", "own:1", "--env", "EDITOR=vi", "--no-prepare")
    expect((await shell("source", "cat $HOME/note")).stdout).toBe("text\n")
    await bhatti("destroy", "-y", "source")
    await bhatti("create", "--name", "copy", "--image", "own:1")
    const { stdout } = await shell(
      "copy",
      `cd $HOME; cat note late; stat -c %h note; ls /tmp; ls gone 2>/dev/null
      hostname; id -u; echo "$EDITOR-$TOKEN"; grep -l source /etc/hostname /etc/hosts /etc/machine-id; true`,
    )
    expect(stdout.split("\n")).toEqual(["text", "late", "2", "copy", long ? "1000" : "0", "vi-", ""])
    if (long) expect((await shell("copy", "sudo id -u; id -un")).stdout).toBe("0\nlohar\n")
    await bhatti("destroy", "-y", "copy")
    await bhatti("image", "prune", "-y")
    expect([disks(), unfinished()]).toEqual([[], []])
  }, 300_000)

  describe("a daemon that is killed", () => {
    const pull = () => own.bhatti(["image", "pull", "--detach", "--no-prepare", "--name", "app", "app:1"])
    const taskOf = async (id: string) => (await jsonOf<Task[]>("task", "list")).find((one) => one.id === id)

    async function checkAfter(id: string): Promise<void> {
      rmSync(join(own.dataDir, failPointFile), { force: true })
      await own.startDaemon()
      expect(await taskOf(id)).toMatchObject({ status: "interrupted" })
      expect([await images(), disks(), unfinished()]).toEqual([[], [], []])
      await bhatti("image", "pull", "--no-prepare", "--name", "app", "app:1")
      expect(await images()).toMatchObject([{ name: "app", status: "ready" }])
      await bhatti("image", "delete", "-y", "app")
      expect([disks(), unfinished()]).toEqual([[], []])
      rmSync(join(own.dataDir, "registry", "blobs"), { recursive: true, force: true })
    }

    for (const call of ["resolve", "make"]) {
      test(`after ${call} leaves no image and nothing else, and the next pull succeeds`, async () => {
        const point: FailPoint = { call: { name: call, nth: 0 }, how: "kill after" }
        writeFileSync(join(own.dataDir, failPointFile), JSON.stringify(point))
        const { stdout } = await pull()
        await until("the daemon is dead", () => own.daemonExitCode() !== null)
        await checkAfter(stdout.trim())
      }, 180_000)
    }

    for (const [name, part] of [
      ["while it fetches leaves nothing, and the next pull succeeds", "work"],
      ["while it unpacks leaves nothing, and the next pull succeeds", "disk"],
    ] as const) {
      test(name, async () => {
        rmSync(join(own.dataDir, "registry", "blobs"), { recursive: true, force: true })
        const { stdout } = await pull()
        const tasks = join(own.dataDir, "registry", "tasks")
        await until(`there is a directory ${part}`, () =>
          unfinished().some((name) =>
            existsSync(join(tasks, name, part, part === "work" ? "layout/oci-layout" : ".")),
          ),
        )
        await own.stopDaemon("SIGKILL")
        await checkAfter(stdout.trim())
      }, 180_000)
    }
  })

  describe("a daemon that is killed while an image leaves a sandbox or the host", () => {
    const exported = () => join(work, "killed.tar")
    const commands = {
      save: () => ["image", "save", "source", "--name", "saved", "--no-prepare"],
      push: () => ["image", "push", "app", `${secured.host}/killed:1`],
      export: () => ["image", "export", "app", "-o", exported()],
    }
    type Command = keyof typeof commands
    const snapshots = () => readdirSync(join(own.dataDir, "snapshots"))

    beforeAll(async () => {
      await bhatti("image", "pull", "--no-prepare", "--name", "app", "app:1")
      await bhatti("create", "--name", "source", "--image", "app")
      await bhatti("exec", "source", "--", "/bin/busybox", "touch", "/mine")
    }, 180_000)
    afterAll(async () => {
      await bhatti("destroy", "-y", "source")
      await bhatti("image", "prune", "-y")
      expect([disks(), unfinished()]).toEqual([[], []])
    }, 60_000)

    async function checkAfter(command: Command, running: ReturnType<typeof own.bhatti>): Promise<void> {
      rmSync(join(own.dataDir, failPointFile), { force: true })
      await own.startDaemon()
      // A client that follows a task comes back, and is told its end.
      expect((await running).exitCode).toBe(1)
      if (command !== "export")
        expect((await jsonOf<Task[]>("task", "list")).map(({ status }) => status)).toContain("interrupted")
      expect((await images()).map(({ name }) => name)).toEqual(["app"])
      expect([disks().length, snapshots(), existsSync(exported())]).toEqual([1, [], false])
      // The regular clean-up has a directory for a moment.
      await until("nothing unfinished is left", () => unfinished().length === 0)
      await bhatti("exec", "source", "--", "/bin/busybox", "test", "-e", "/mine")
      await bhatti(...commands[command]())
      if (command === "save") await bhatti("image", "delete", "-y", "saved")
      rmSync(exported(), { force: true })
      expect([disks().length, snapshots()]).toEqual([1, []])
      await until("nothing unfinished is left", () => unfinished().length === 0)
    }

    const points: [Command, call: string, how: FailPoint["how"]][] = [
      ["save", "pack", "kill before"],
      ["save", "capture", "kill after"],
      ["save", "make", "kill after"],
      ["save", "begin", "kill after"],
      ["save", "pause", "kill after"],
      ["save", "capture", "kill before"],
      ["save", "pack", "kill after"],
      ["save", "make", "kill before"],
      ["push", "push", "kill before"],
      ["push", "push", "kill after"],
    ]
    const chosen = process.env["IMAGE_KILLS"] === "all" ? points : points.slice(1, 3)
    test.each(chosen)(
      "at %s, %s, %s leaves nothing, and the next one succeeds",
      async (command, name, how) => {
        const point: FailPoint = { call: { name, nth: 0 }, how }
        writeFileSync(join(own.dataDir, failPointFile), JSON.stringify(point))
        const running = own.bhatti(commands[command]())
        await until("the daemon is dead", () => own.daemonExitCode() !== null)
        await checkAfter(command, running)
      },
      180_000,
    )

    test.each([
      ["push", "sends", "work/image/index.json"],
      ["export", "packs", "packed"],
      ["save", "packs", "packed"],
    ] as const)(
      "while %s %s leaves nothing, and the next one succeeds",
      async (command, _, part) => {
        const running = own.bhatti(commands[command]())
        const tasks = join(own.dataDir, "registry", "tasks")
        await until(`there is ${part}`, () =>
          unfinished().some((name) => existsSync(join(tasks, name, part))),
        )
        await own.stopDaemon("SIGKILL")
        await checkAfter(command, running)
      },
      180_000,
    )
  })
})
