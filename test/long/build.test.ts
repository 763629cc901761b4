/**
 * Images built of Dockerfiles in ways that are rare: of nothing, with file capabilities, and over a quota. A minute, so
 * only when it is asked for: `BHATTI_TEST_LONG=1 bun test test/long/build.test.ts`.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install } from "../support/installation.ts"
import { addBusybox, linkBusybox } from "../support/made-image.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"

describe.skipIf(!isAsked)("a build", () => {
  let own: Installation
  const work = mkdtempSync("/tmp/bhatti-build-")
  beforeAll(async () => {
    own = await install()
    const tree = join(work, "base")
    mkdirSync(join(tree, "bin"), { recursive: true })
    addBusybox(own.dataDir, tree, "bin")
    linkBusybox(tree, "bin", ["sh", "cat", "dd", "ls"])
    Bun.spawnSync(["tar", "-C", tree, "-cf", join(work, "base.tar"), "."])
    await own.bhatti(["image", "import", "--name", "base", "--no-prepare", join(work, "base.tar")])
  }, 600_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  }, 60_000)

  /** A directory with the Dockerfile and a static program. */
  function directory(dockerfile: string, program = ""): string {
    const path = mkdtempSync(join(work, "context-"))
    writeFileSync(join(path, "Dockerfile"), dockerfile)
    if (program === "") return path
    writeFileSync(join(work, "program.c"), program)
    const compiled = Bun.spawnSync([
      ...["musl-gcc", "-static", "-o", join(path, "program"), join(work, "program.c")],
    ])
    expect(compiled.stderr.toString()).toBe("")
    return path
  }
  const build = (name: string, path: string) =>
    own.bhatti(["image", "build", "-t", name, "--no-prepare", path])
  const run = async (...words: string[]) => {
    const { exitCode, stdout, stderr } = await own.bhatti(["run", "--rm", ...words])
    return [exitCode, stdout, exitCode === 0 ? "" : stderr]
  }

  test("of nothing but a static program gives an image that runs it", async () => {
    const path = directory(
      'FROM scratch\nCOPY program /program\nRUN ["/program", "in a step"]\nCMD ["/program", "by itself"]\n',
      '#include <stdio.h>\nint main(int n, char **words) { printf("runs %s\\n", words[1]); return 0; }\n',
    )
    const built = await build("nothing", path)
    expect([built.exitCode, built.stderr]).toEqual([0, expect.stringContaining("runs in a step")])
    expect(await run("nothing")).toEqual([0, "runs by itself\n", ""])
  }, 300_000)

  test("keeps the capabilities of files that it copies between stages", async () => {
    const path = directory(
      "FROM base AS one\nCOPY program /program\nRUN /program set /program\nFROM base\nCOPY --from=one /program /copied\n",
      `#include <stdio.h>
#include <sys/xattr.h>
int main(int n, char **words) {
  unsigned char value[20] = {1, 0, 0, 2, 0, 4}, found[20] = {0};
  const char *name = "security.capability";
  if (words[1][0] == 's') return setxattr(words[2], name, value, 20, 0) == 0 ? 0 : 1;
  long size = getxattr(words[2], name, found, 20);
  printf("%ld %d %d\\n", size, found[3], found[5]);
  return 0;
}
`,
    )
    expect((await build("capable", path)).exitCode).toBe(0)
    expect(await run("capable", "/copied", "get", "/copied")).toEqual([0, "20 2 4\n", ""])
  }, 300_000)

  test("whose step writes more than the quota of its user is ended, says so, and leaves no image", async () => {
    const quota = (mib: string) =>
      own.bhatti(["user", "edit", "tester", "--max-disk", mib, "--data-dir", own.dataDir])
    expect((await quota("300")).exitCode).toBe(0)
    const path = directory("FROM base\nRUN dd if=/dev/urandom of=/big bs=1M count=3000\n")
    const built = await build("big", path)
    expect([built.exitCode, built.stderr]).toEqual([
      expect.any(Number),
      expect.stringContaining("disk quota is used up"),
    ])
    expect(built.exitCode).not.toBe(0)
    expect((await own.bhatti(["image", "list"])).stdout).not.toContain("big")
    expect((await own.bhatti(["list", "-q"])).stdout).toBe("")
    await quota("0")
  }, 300_000)
})
