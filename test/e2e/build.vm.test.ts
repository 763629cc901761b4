/**
 * Images built of Dockerfiles: every step runs in a sandbox of its user and is kept, a second build runs none, and what
 * fails says where.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import type { Image } from "@bhatti/contract/image"
import type { Task } from "@bhatti/contract/task"
import { isDiskName } from "../../src/lib/disk-names.ts"
import { buildahIsThere, buildWithBuildah, tenSteps, treeOf } from "../support/buildah.ts"
import { type FailPoint, failPointFile } from "../support/failing-daemon.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { addBusybox, linkBusybox } from "../support/made-image.ts"

let own: Installation
const work = mkdtempSync("/tmp/bhatti-build-")
const programs =
  "sh cat echo ls id pwd env mkdir chmod chown cp rm ln touch stat sleep head seq wc find sort dd test yes".split(
    " ",
  )

beforeAll(async () => {
  own = await install({
    serve: [process.execPath, resolve(import.meta.dir, "../support/failing-daemon.ts")],
  })
  const tree = join(work, "base")
  mkdirSync(join(tree, "bin"), { recursive: true })
  mkdirSync(join(tree, "etc"))
  writeFileSync(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nann:x:1001:1002::/home/ann:/bin/sh\n",
  )
  writeFileSync(join(tree, "etc/group"), "root:x:0:\nann:x:1002:\n")
  addBusybox(own.dataDir, tree, "bin")
  linkBusybox(tree, "bin", programs)
  Bun.spawnSync(["tar", "-C", tree, "-cf", join(work, "base.tar"), "."])
  await bhatti("image", "import", "--name", "base", "--no-prepare", join(work, "base.tar"))
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(work, { recursive: true, force: true })
}, 60_000)

const bhatti = async (...args: string[]) => {
  const ran = await own.bhatti(args)
  if (ran.exitCode !== 0)
    throw new Error(`bhatti ${args.join(" ")}: ${ran.stderr}\n${own.daemonLog().slice(-3000)}`)
  return ran
}
function directory(files: Record<string, string>): string {
  const path = mkdtempSync(join(work, "context-"))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(path, name, ".."), { recursive: true })
    writeFileSync(join(path, name), text)
  }
  return path
}
const build = (path: string, ...options: string[]) =>
  own.bhatti(["image", "build", "-t", "app", "--no-prepare", ...options, path])

const images = async () =>
  (JSON.parse((await bhatti("image", "list", "--json")).stdout) as Image[]).filter(({ id }) => id !== null)
/** The newest first. */
const tasks = async () =>
  (JSON.parse((await bhatti("task", "list", "--json")).stdout) as Task[])
    .filter(({ status }) => status !== "done" && status !== "failed")
    .reverse()
const filesIn = (...path: string[]) =>
  existsSync(join(own.dataDir, ...path)) ? readdirSync(join(own.dataDir, ...path)) : []
const disks = () => filesIn("images").filter(isDiskName)
const unfinished = () => filesIn("registry", "tasks")
/** Lines with the pattern in all files of the installation. Holes of disks are not read. */
function linesOnDisk(pattern: string): number {
  const search = 'tar -C "$0" -cSf - . | grep -caE "$1"'
  return Number(Bun.spawnSync(["sh", "-c", search, own.dataDir, pattern]).stdout.toString())
}
const steps = () => filesIn("snapshots")

async function diskOf(name: string): Promise<string> {
  const { hash } = JSON.parse((await bhatti("image", "inspect", name, "--json")).stdout)
  const disk = disks().find((one) => filesIn("images", one).includes(`${hash}.raw`))
  return join(own.dataDir, "images", disk ?? "", `${hash}.raw`)
}

describe("a build", () => {
  test("runs its steps once, gives an image that keeps its configuration, and takes all from the cache later", async () => {
    const path = directory({
      Dockerfile: `FROM base AS tools
ARG V=1
RUN mkdir /out && echo tool $V > /out/tool && chown 7:8 /out/tool && ln -s tool /out/link
FROM base
ENV GREETING=hello PATH=/opt/bin:/bin
WORKDIR /srv/app
COPY --chown=ann *.txt sub ./
COPY --from=tools /out /opt
RUN echo $GREETING > made; id -u >> made; pwd >> made
USER ann
CMD ["/bin/cat", "made"]
`,
      "a.txt": "a\n",
      "b.txt": "b\n",
      "ignored.log": "x",
      "sub/deep/c": "c\n",
      ".dockerignore": "*.log\n",
    })
    const first = await build(path)
    expect(first.stderr).toContain("[tools 1/1] RUN mkdir /out")
    expect([first.exitCode, first.stdout]).toEqual([0, expect.stringContaining("image/app built")])
    const second = await build(path)
    expect(second.exitCode).toBe(0)
    expect(second.stderr).toContain("all steps are cached")
    const ran = await bhatti("run", "--rm", "app")
    expect(ran.stdout).toBe("hello\n0\n/srv/app\n")
    const shown = await bhatti(
      ...[
        "run",
        "--rm",
        "app",
        "/bin/sh",
        "-c",
        "id -u; ls -lnR . /opt | grep -v total | sed 's/ [A-Z].*:.. / /'; cat /opt/tool",
      ],
    )
    expect(shown.stdout).toContain("-rw-r--r--    1 7        8                7 tool")
    expect(shown.stdout.split("\n").slice(0, 5)).toEqual([
      "1001",
      ".:",
      "-rw-r--r--    1 1001     1002             2 a.txt",
      "-rw-r--r--    1 1001     1002             2 b.txt",
      "drwxr-xr-x    2 1001     1002          4096 deep",
    ])
    expect((await bhatti("list", "-q")).stdout).toBe("")
  }, 300_000)

  test("runs scripts and commands with secrets in memory, unpacks archives, and links what it copies", async () => {
    const path = directory({
      Dockerfile: `FROM base
RUN --mount=type=secret,id=token --mount=type=secret,id=key,target=/etc/key --mount=type=tmpfs,target=/scratch <<EOF
cat /run/secrets/token /etc/key | wc -c > /sum
cp /etc/key /scratch/copy
EOF
RUN <<EOF
#!/bin/sh
echo "a script of $0" > /script
EOF
RUN ["/bin/sh", "-c", "ls /etc /scratch /run/secrets > /left 2>&1; echo end >> /left"]
ADD files.tar.gz /unpacked/
COPY <<one <<two /texts/
first
one
second $HOME
two
USER 1001
RUN id -u > /tmp/user && test ! -e /etc/key
`,
      "inside/a": "in the archive\n",
      key: "secret-of-the-key",
    })
    Bun.spawnSync(["tar", "-C", path, "-czf", join(path, "files.tar.gz"), "inside"])
    const secrets = ["--secret", `id=key,src=${join(path, "key")}`, "--secret", "id=token,env=TOKEN_OF_BUILD"]
    const built = await build(path, ...secrets)
    expect(built.stderr).toContain("there is no variable TOKEN_OF_BUILD")
    const again = await own.bhatti(["image", "build", "-t", "app", "--no-prepare", ...secrets, path], {
      env: { TOKEN_OF_BUILD: "secret-of-the-token" },
    })
    expect([again.exitCode, again.stderr.split("\n").at(-2)]).toEqual([
      0,
      expect.stringContaining("RUN id -u"),
    ])
    const ran = await bhatti(
      ...[
        "run",
        "--rm",
        "-u",
        "0",
        "app",
        "/bin/sh",
        "-c",
        "cat /sum /script /left /unpacked/inside/a /texts/*; cat /tmp/user",
      ],
    )
    expect(
      ran.stdout
        .split("\n")
        .filter((line) => !/^(group|host|hosts|hostname|machine-id|resolv.conf|)$/.test(line)),
    ).toEqual([
      "36",
      "a script of /run/bhatti-build/script",
      "ls: /scratch: No such file or directory",
      "/etc:",
      "passwd",
      "/run/secrets:",
      "end",
      "in the archive",
      "first",
      "second ",
      "1001",
    ])
    expect(linesOnDisk("in the archive")).not.toBe(0)
    expect(linesOnDisk("secret-of-the-(key|token)")).toBe(0)
    expect(own.daemonLog()).not.toContain("secret-of-the-")
  }, 300_000)

  test("that fails names the step, its line and its exit code, shows its output, and goes on behind the steps before", async () => {
    const path = directory({ Dockerfile: "FROM base\nRUN echo one > /one\nRUN echo why; exit 7\n" })
    const failed = await own.bhatti(["image", "build", "-t", "failing", path])
    expect(failed.exitCode).toBe(1)
    expect(failed.stderr).toContain("why\n")
    expect(failed.stderr).toContain("line 3: RUN echo why; exit 7: exit code 7")
    writeFileSync(join(path, "Dockerfile"), "FROM base\nRUN echo one > /one\nRUN echo two\n")
    const fixed = await build(path)
    expect(fixed.stderr).toContain("[0 1/2] RUN echo one > /one (cached)\n[0 2/2] RUN echo two\ntwo\n")
    expect((await images()).map(({ name }) => name).sort()).toEqual(["app", "base"])
    expect((await bhatti("list", "-q")).stdout).toBe("")
  }, 120_000)

  test("is refused as a whole before anything runs, for an instruction, a file or an image that is not there", async () => {
    const path = directory({ Dockerfile: "FROM base\nRUN echo no\nONBUILD RUN x\n" })
    const refused = await build(path)
    expect(refused.stderr).toContain("Dockerfile, line 3: ONBUILD is not supported")
    writeFileSync(join(path, "Dockerfile"), "FROM base\nRUN echo no\nCOPY nowhere /\n")
    expect((await build(path)).stderr).toContain(
      'Dockerfile, line 3: "nowhere" is not in the build\'s directory',
    )
    writeFileSync(join(path, "Dockerfile"), "FROM base\nRUN echo no\nADD tree.tar.zst /\n")
    writeFileSync(join(path, "tree.tar.zst"), Bun.zstdCompressSync("a".repeat(1024)))
    const zstd = await build(path)
    expect(zstd.stderr).toContain('Dockerfile, line 3: ADD does not unpack "tree.tar.zst"')
    writeFileSync(
      join(path, "Dockerfile"),
      "FROM base AS a\nRUN echo no\nFROM nobody-has-this\nCOPY --from=a / /\n",
    )
    const missing = await build(path)
    expect(missing.stderr).toContain("Dockerfile, line 3: no image named")
    expect([refused, missing].map(({ exitCode }) => exitCode)).toEqual([2, 1])
    expect(`${refused.stderr}${zstd.stderr}${missing.stderr}`).not.toContain("RUN echo no")
  }, 60_000)

  test("is cancelled by Ctrl-C, in the middle of a step, and leaves nothing", async () => {
    const path = directory({ Dockerfile: "FROM base\nRUN echo begun; sleep 1000\n" })
    const running = own.start(["image", "build", "-t", "cancelled", path])
    let words = ""
    const reading = (async () => {
      for await (const piece of running.stderr) words += new TextDecoder().decode(piece)
    })()
    await until("the step runs", () => words.includes("begun\n"))
    running.kill("SIGINT")
    expect(await running.exited).toBe(130)
    await reading
    expect((await bhatti("list", "-q")).stdout).toBe("")
    expect(await tasks()).toMatchObject([{ subject: "cancelled", status: "cancelled" }])
  }, 120_000)

  test.skipIf(!buildahIsThere)(
    "of ten steps gives the tree that buildah gives, but for the places that a machine needs",
    async () => {
      const path = directory({
        Dockerfile: tenSteps,
        "src/main.c": "int main;\n",
        "src/deep/er/x": "x\n",
        "src/run.sh": "#!/bin/sh\necho run\n",
        "conf/a.conf": "a\n",
        "conf/b.conf": "b\n",
        "conf/c.txt": "c\n",
      })
      Bun.spawnSync(["chmod", "755", join(path, "src/run.sh")])
      Bun.spawnSync(["ln", "-s", "../conf/a.conf", join(path, "src/link")])
      const built = await bhatti("image", "build", "-t", "ten", "--no-prepare", "--build-arg", "V=2", path)
      const second = await bhatti("image", "build", "-t", "ten", "--no-prepare", "--build-arg", "V=2", path)
      console.log(`ten steps: ${Math.round(built.ms)} ms, from the cache ${Math.round(second.ms)} ms`)
      expect(second.stderr).toContain("all steps are cached")
      expect(second.ms).toBeLessThan(2000 * patience)
      const seen = await bhatti("run", "--rm", "ten")
      expect(seen.stdout).toBe("2\nas 1001\n")
      const theirs = buildWithBuildah(join(work, "base.tar"), path, ["--build-arg", "V=2"])
      const ours = treeOf(await diskOf("ten"))
      const ofMachine =
        /^(dev|proc|sys|run|tmp|etc\/(hosts|hostname|resolv\.conf|machine-id)|usr\/local(\/sbin(\/(poweroff|reboot|halt|shutdown))?)?|lib(\/modules(\/.*)?)?)$/
      const differing = [...new Set([...ours.keys(), ...theirs.keys()])].filter(
        (name) => ours.get(name) !== theirs.get(name) && !ofMachine.test(name),
      )
      expect(differing.map((name) => [name, ours.get(name), theirs.get(name)])).toEqual([])
      expect(ours.size).toBeGreaterThan(40)
    },
    300_000,
  )

  test("of a recipe is made once, and its program is in the memory of every sandbox", async () => {
    const path = directory({
      "setup.sh": "#!/bin/sh\necho made by $0 > /made\n",
      Dockerfile: `FROM base
LABEL sh.bhatti.start="echo $$ > /loaded; exec sleep 100000" sh.bhatti.ready="test -s /loaded"
`,
    })
    const program = ["--start", "echo up > /up; exec sleep 100000", "--ready", "test -s /up"]
    const script = ["--recipe", join(path, "setup.sh"), "--image", "base", ...program]
    await bhatti("create", "--name", "one", ...script)
    const second = await bhatti("create", "--name", "two", ...script)
    expect((await bhatti("exec", "two", "--", "cat", "/made", "/up")).stdout).toBe(
      "made by /run/bhatti-build/script\nup\n",
    )
    expect((await bhatti("ps", "two")).stdout).toContain("main")
    await bhatti("create", "--name", "three", "--recipe", join(path, "Dockerfile"))
    const keyed = await bhatti("create", "--name", "four", "--recipe", join(path, "Dockerfile"))
    console.log(
      `create from a recipe, the second time: ${Math.round(second.ms)} and ${Math.round(keyed.ms)} ms`,
    )
    const loaded = async (name: string) => (await bhatti("exec", name, "--", "cat", "/loaded")).stdout
    expect(await loaded("four")).toBe(await loaded("three"))
    expect((await bhatti("ps", "four")).stdout).toContain("main")
    await bhatti("destroy", "-y", "one", "two", "three", "four")
  }, 300_000)

  test("leaves no disk of a step after a prune", async () => {
    expect(steps().length).toBeGreaterThan(5)
    await bhatti("image", "prune", "-y")
    expect([steps(), await images(), disks(), unfinished()]).toEqual([[], [], [], []])
    await bhatti("image", "import", "--name", "base", "--no-prepare", join(work, "base.tar"))
  }, 60_000)

  test("ends at the step that crosses its user's disk quota, by RUN and by ADD, and leaves nothing", async () => {
    const quota = (size: string) =>
      own.bhatti(["user", "edit", "tester", "--max-disk", size, "--data-dir", own.dataDir])
    const { stdout } = await own.bhatti(["user", "list", "--json", "--data-dir", own.dataDir])
    const [user] = JSON.parse(stdout) as { disk_used_mb: number }[]
    const before = [await images(), disks(), unfinished()]
    // Room for a builder and its template.
    expect((await quota(`${(user?.disk_used_mb ?? 0) + 60}M`)).exitCode).toBe(0)
    try {
      for (const step of ["ADD large.tar.gz /b", "RUN yes | head -c 100000000 > /b"]) {
        const path = directory({ Dockerfile: `FROM base\nRUN echo small > /a\n${step}\nRUN echo never\n` })
        const pack = `yes | head -c 100000000 > large; tar -czf large.tar.gz large; rm large`
        expect(Bun.spawnSync(["sh", "-c", pack], { cwd: path }).exitCode).toBe(0)
        const { exitCode, stdout, stderr } = await build(path)
        expect([exitCode, stderr]).toEqual([1, expect.stringContaining(`line 3: ${step}: `)])
        expect(stderr).toContain("your disk quota is used up")
        expect(stdout + stderr).not.toContain("never")
        expect([await images(), disks(), unfinished()]).toEqual(before)
        expect((await bhatti("list", "-q")).stdout).toBe("")
      }
    } finally {
      await quota("0")
    }
  }, 120_000)
})

describe("a daemon that is killed during a build", () => {
  const points: [call: string, nth: number, how: FailPoint["how"]][] = [
    ["start", 0, "kill after"],
    ["begin", 0, "kill after"],
    ["pause", 0, "kill after"],
    ["capture", 1, "kill after"],
    ["commit", 0, "kill before"],
    ["commit", 1, "kill after"],
    ["makeOf", 0, "kill before"],
    ["makeOf", 0, "kill after"],
  ]
  const chosen = process.env["BUILD_KILLS"] === "all" ? points : points.filter((_, index) => index % 4 === 2)
  test.each(chosen)(
    "at %s %i, %s, leaves no image and no builder, and the next build succeeds",
    async (name, nth, how) => {
      const path = directory({
        Dockerfile: `FROM base\nRUN echo ${name} ${nth} ${how} > /a\nCOPY x /x\nRUN cat /a /x\n`,
        x: "x\n",
      })
      const point: FailPoint = { call: { name, nth }, how }
      writeFileSync(join(own.dataDir, failPointFile), JSON.stringify(point))
      await own.bhatti(["image", "build", "-t", "killed", "--no-prepare", "--detach", path])
      await until("the daemon is dead", () => own.daemonExitCode() !== null)
      rmSync(join(own.dataDir, failPointFile))
      await own.startDaemon()
      expect((await tasks())[0]).toMatchObject({ subject: "killed", status: "interrupted" })
      await until("no builder is left", async () => (await bhatti("list", "-q")).stdout === "")
      expect((await images()).map((image) => image.name)).toEqual(["base"])
      expect(unfinished()).toEqual([])
      expect(steps().filter((id) => !id.startsWith("build_"))).toEqual([])
      await bhatti("image", "build", "-t", "killed", "--no-prepare", path)
      await bhatti("image", "delete", "-y", "killed")
    },
    180_000,
  )
})
