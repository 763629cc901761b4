/** `install.sh` where it cannot work: each shell that may read it is told what is needed, in one line. */

import { expect, test } from "bun:test"
import { join, resolve } from "node:path"

const file = join(resolve(import.meta.dir, "../.."), "install.sh")
const needed =
  "error: install.sh needs bash and the files beside it; in a checkout or an unpacked release archive run: sudo ./install.sh\n"

test("read from standard input, or by another shell, it says in one line what it needs", async () => {
  const shells = [["bash"], ["dash"], ["busybox", "sh"]].filter(([name = ""]) => Bun.which(name) !== null)
  for (const shell of shells) {
    const piped = Bun.spawnSync(shell, { stdin: Bun.file(file), cwd: join(file, "..") })
    expect([shell, piped.stdout.toString(), piped.stderr.toString()]).toEqual([shell, "", needed])
    expect(piped.exitCode).toBe(1)
    if (shell[0] === "bash") continue
    const named = Bun.spawnSync([...shell, file])
    expect([shell, named.stderr.toString(), named.exitCode]).toEqual([shell, needed, 1])
  }
  const help = Bun.spawnSync(["bash", file, "--help"])
  expect([help.stdout.toString(), help.exitCode]).toEqual([
    expect.stringContaining("usage: sudo ./install.sh"),
    0,
  ])
})
