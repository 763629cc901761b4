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
import { type BuiltTree, buildahIsThere, buildWithBuildah } from "../support/buildah.ts"
import { readExt4Tree } from "../support/ext4-tree.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { addBusybox, linkBusybox } from "../support/made-image.ts"

let own: Installation
const work = mkdtempSync("/tmp/bhatti-build-")
const programs =
  "sh cat echo ls id pwd env mkdir chmod chown cp rm ln touch stat sleep head seq wc find sort dd test".split(
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

async function diskOf(name: string): Promise<string> {
  const { hash } = JSON.parse((await bhatti("image", "inspect", name, "--json")).stdout)
  const disk = disks().find((one) => filesIn("images", one).includes(`${hash}.raw`))
  return join(own.dataDir, "images", disk ?? "", `${hash}.raw`)
}

/** Each entry as a text, without times. */
function treeOf(disk: string): BuiltTree {
  const entries = [...readExt4Tree(disk)].filter(([name]) => name !== "")
  return new Map(
    entries.map(([name, { kind, mode, uid, gid, content, attributes }]) => [
      Buffer.from(name, "latin1").toString(),
      [
        kind,
        kind === "symlink" ? "" : (mode & 0o7777).toString(8),
        `${uid}:${gid}`,
        kind === "file" || kind === "symlink" ? Bun.hash(content ?? "").toString(16) : "",
        Object.keys(attributes).join(),
      ].join(" "),
    ]),
  )
}

const tenSteps = `ARG V=1
FROM base AS tools
RUN mkdir -p /opt/tools/bin && echo tool > /opt/tools/bin/tool && chmod 4755 /opt/tools/bin/tool
RUN ln -s bin/tool /opt/tools/link && ln /opt/tools/bin/tool /opt/tools/hard && chown -R 5:6 /opt/tools
FROM base
ARG V
ENV VERSION=$V
WORKDIR /srv/app
COPY src .
COPY --chown=1001:1002 --chmod=640 conf/*.conf /etc/app/
COPY --from=tools /opt/tools /usr/lib/tools
COPY --from=tools /opt/tools/bin/tool /usr/bin/
RUN echo $VERSION > version && rm run.sh && mkdir -m 1777 shared
RUN chown ann version && touch empty && mkdir -p a/b/c
USER ann
RUN echo as $(id -u) > /srv/app/shared/me
CMD ["/bin/sh"]
`

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
    writeFileSync(
      join(path, "Dockerfile"),
      "FROM base AS a\nRUN echo no\nFROM nobody-has-this\nCOPY --from=a / /\n",
    )
    const missing = await build(path)
    expect(missing.stderr).toContain("Dockerfile, line 3: no image named")
    expect([refused, missing].map(({ exitCode }) => exitCode)).toEqual([2, 1])
    expect(`${refused.stderr}${missing.stderr}`).not.toContain("RUN echo no")
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
})
