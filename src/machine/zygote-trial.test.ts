/** The comparison of a forked machine with its zygote, on plain processes of which one is the other's child. */

import { expect, test } from "bun:test"
import { checkSeparation } from "./zygote-trial.ts"

const isRoot = process.getuid?.() === 0

/** Forks after that line of Python, and prints the child's pid; both wait until the test has looked. */
async function compare(line: string): Promise<string> {
  const script = `
import mmap, os, signal, socket, sys
${line}
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2): os.dup2(null, fd)
    os.close(ready)
    os.write(tell, b"x")
    os.close(tell)
    signal.pause()
os.read(ready, 1)
os.close(tell)
os.read(ready, 1)
print(child, flush=True)
sys.stdin.read()
os.kill(child, 9)
`
  // In another locale Python maps a table of encodings, shared.
  const env = { PATH: "/usr/bin:/bin", LC_ALL: "C", PYTHONCOERCECLOCALE: "0", PYTHONUTF8: "0" }
  const stdio = { stdin: "pipe", stdout: "pipe", stderr: "inherit" } as const
  const parent = Bun.spawn(["python3", "-c", script], { ...stdio, env })
  const reader = parent.stdout.getReader()
  const child = Number(Buffer.from((await reader.read()).value ?? []).toString())
  try {
    checkSeparation(child, parent.pid)
    return "apart"
  } catch (error) {
    return `${error}`.replace(/^.*: /, "").replace(/\d{2,}/g, "N")
  } finally {
    parent.stdin.end()
    await parent.exited
  }
}

test.skipIf(!isRoot)(
  "two processes that share an open file for writing, an event or memory are not apart",
  async () => {
    expect(await compare("file = open('/etc/hostname')")).toBe("apart")
    expect(await compare("file = open('/tmp/bhatti-trial', 'w'); os.unlink(file.name)")).toBe(
      "both hold /tmp/bhatti-trial (deleted)",
    )
    expect(await compare("one, other = socket.socketpair()")).toBe("both hold socket:[N]")
    expect(await compare("import select; queue = select.epoll()")).toBe("both hold anon_inode:[eventpoll]")
    expect(await compare("memory = mmap.mmap(-1, 4096)")).toBe("both map /dev/zero (deleted)")
  },
)
