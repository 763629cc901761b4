/**
 * Images built of Dockerfiles: every step runs in a sandbox of its user and is kept, a second build runs none, and what
 * fails says where.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install } from "../support/installation.ts"
import { addBusybox, linkBusybox } from "../support/made-image.ts"

let own: Installation
const work = mkdtempSync("/tmp/bhatti-build-")
const programs =
  "sh cat echo ls id pwd env mkdir chmod chown cp rm ln touch stat sleep head seq wc find sort dd test".split(
    " ",
  )

beforeAll(async () => {
  own = await install()
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
})
