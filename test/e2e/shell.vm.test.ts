/** Terminal sessions on real machines, seen through a real terminal. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { binary, type Installation, install, until } from "../support/installation.ts"
import { Tmux, tmuxIsThere } from "../support/tmux.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

type SessionRow = { session_id: string; name: string | null; running: boolean; attached: boolean }

async function sessions(sandbox = "dev"): Promise<SessionRow[]> {
  const { stdout } = await own.bhatti(["ps", sandbox, "--json"])
  return JSON.parse(stdout)
}

function openTerminal(size: { cols?: number; rows?: number } = {}): Promise<Tmux> {
  return Tmux.open({ ...size, env: { BHATTI_URL: own.url, BHATTI_TOKEN: own.key } })
}

async function attach(terminal: Tmux, args: string): Promise<void> {
  await terminal.run(`clear; ${binary} shell ${args}; echo "co""de=$?"`)
}

/** A new session whose prompt waits. */
async function newSession(terminal: Tmux, sandbox = "dev"): Promise<string> {
  await attach(terminal, `${sandbox} --new`)
  await terminal.shows(`lohar@${sandbox}:/workspace$`)
  const attached = (await sessions(sandbox)).find((one) => one.attached)
  return attached?.session_id ?? ""
}

/** A key that makes a signal throws away what was typed before it and not yet read, so the program must run first. */
async function pressWhileRuns(terminal: Tmux, key: string, program: string): Promise<void> {
  await until(`${program} to run`, async () => {
    return (await own.bhatti(["exec", "dev", "--", "pgrep", "-x", program])).exitCode === 0
  })
  await terminal.press(key)
}

async function isBack(terminal: Tmux): Promise<void> {
  expect(await terminal.leftovers()).toEqual([])
  const modes = await terminal.modes()
  for (const mode of ["icanon", "isig", "echo", "opost", "icrnl"]) expect(modes).toContain(mode)
}

describe.if(tmuxIsThere)("shell", () => {
  test("is a terminal of our size that follows it", async () => {
    await using terminal = await openTerminal({ cols: 90, rows: 25 })
    await newSession(terminal)
    await terminal.run("tty; echo si-$(stty size)")
    await terminal.shows("/dev/pts/")
    await terminal.shows("si-25 90")
    await terminal.resize({ cols: 70, rows: 20 })
    await until("the session to have the size", async () => {
      await terminal.run("echo now-$(stty size)")
      return (await terminal.screen()).includes("now-20 70")
    })
    await terminal.run("exit")
    await terminal.shows("code=0")
  })

  test("passes every key: Ctrl-C, Ctrl-D, Ctrl-Z, and returns the shell's exit code", async () => {
    await using terminal = await openTerminal()
    await newSession(terminal)
    await terminal.run("PS1='[$?]> '")
    await terminal.shows("[0]>")
    await terminal.run("sleep 1000")
    await pressWhileRuns(terminal, "C-c", "sleep")
    await terminal.shows("[130]>")
    await terminal.run("cat")
    await pressWhileRuns(terminal, "C-z", "cat")
    await terminal.shows("Stopped")
    await terminal.run("kill -9 %1; wait; (exit 7)")
    await terminal.shows("[7]>")
    await terminal.press("C-d")
    await terminal.shows("code=7")
    await isBack(terminal)
  })

  test("Ctrl+\\ detaches and says how to come back; what went on meanwhile is there", async () => {
    await using terminal = await openTerminal()
    const id = await newSession(terminal)
    await terminal.run("echo be-fore; while [ ! -e go ]; do sleep 0.1; done; echo after-$((40+2))")
    await terminal.shows("be-fore")
    await terminal.press("C-\\")
    await terminal.shows(`detached; it keeps running. Come back: bhatti shell dev ${id}`)
    await terminal.shows("code=0")
    await isBack(terminal)
    expect((await sessions()).find((one) => one.session_id === id)).toMatchObject({
      running: true,
      attached: false,
    })
    await own.bhatti(["exec", "dev", "--", "touch", "go"])
    await attach(terminal, "dev")
    await terminal.shows("be-fore")
    await terminal.shows("after-42")
    await terminal.run("exit")
    await terminal.shows("code=0")
  })

  test("an editor survives its client's death, is drawn again at another size, and saves", async () => {
    await using first = await openTerminal()
    const id = await newSession(first)
    await first.run("vi note.txt")
    await until("the editor", () => first.isOnAlternateScreen())
    await first.type("ifirst line")
    await first.shows("first line")
    process.kill(await first.childPid(), "SIGKILL")
    await until("the session to be free", async () => {
      return (await sessions()).some((one) => one.session_id === id && one.running && !one.attached)
    })

    await using second = await openTerminal({ cols: 70, rows: 18 })
    await attach(second, `dev ${id}`)
    await second.shows("first line")
    expect(await second.isOnAlternateScreen()).toBe(true)
    await second.press("Enter")
    await second.type("second line")
    await second.press("Escape")
    await second.run(":wq")
    await until("the end of the editor", async () => !(await second.isOnAlternateScreen()))
    expect((await own.bhatti(["file", "read", "dev", "note.txt"])).stdout).toBe("first line\nsecond line\n")
    await second.run("exit 3")
    await second.shows("code=3")
  })

  test("detaching from a full-screen program gives back screen, cursor and keys", async () => {
    await using terminal = await openTerminal()
    const id = await newSession(terminal)
    await terminal.run("printf '\\033[?1049h\\033[?25l\\033[?1003h\\033[?1h\\033='; echo full; read x")
    await until("the alternate screen", () => terminal.isOnAlternateScreen())
    await terminal.press("C-\\")
    await terminal.shows("Come back")
    await isBack(terminal)
    await own.bhatti(["kill", "dev", id])
  })

  test("a second client takes the session over, and the first is told", async () => {
    await using first = await openTerminal()
    const id = await newSession(first)
    await first.run("echo se-en")
    await using second = await openTerminal()
    await attach(second, `dev ${id}`)
    await second.shows("se-en")
    await first.shows(`another client has taken this session over. Take it back: bhatti shell dev ${id}`)
    await first.shows("code=125")
    await isBack(first)
    await second.run("exit")
    await second.shows("code=0")
  })

  for (const signal of ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"] as const)
    test(`${signal} detaches and gives the terminal back`, async () => {
      await using terminal = await openTerminal()
      const id = await newSession(terminal)
      process.kill(await terminal.childPid(), signal)
      await terminal.shows("Come back")
      const codes = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143 }
      await terminal.shows(`code=${codes[signal]}`)
      await isBack(terminal)
      expect(await sessions()).toContainEqual(expect.objectContaining({ session_id: id, running: true }))
      await own.bhatti(["kill", "dev", id])
    })

  test("a stop from outside and a continue leave a working terminal", async () => {
    await using terminal = await openTerminal()
    const id = await newSession(terminal)
    const pid = await terminal.childPid()
    process.kill(pid, "SIGSTOP")
    // The prompt that follows may be wrapped.
    await terminal.shows("Stopped")
    // The stopped program could not give the terminal back, in which Enter is no end of a line now.
    await terminal.type("fg")
    await terminal.press("C-j")
    await until("the program to go on", async () => {
      const status = await Bun.file(`/proc/${pid}/status`).text()
      return !status.includes("State:\tT")
    })
    await terminal.run("echo st-$((1+1))ll")
    await terminal.shows("st-2ll")
    await terminal.run("exit")
    await until("the session's end", async () => {
      return (await sessions()).some((one) => one.session_id === id && !one.running)
    })
    await terminal.run("echo ba-$((1+1))ck")
    await terminal.shows("ba-2ck")
    await isBack(terminal)
  })

  test("the daemon's death gives the terminal back, and its next life the session", async () => {
    await using terminal = await openTerminal()
    const id = await newSession(terminal)
    await terminal.run("echo still-$((20+3))")
    await terminal.shows("still-23")
    await terminal.run("kept=$((30+4)); cd /var")
    await terminal.shows("lohar@dev:/var$")
    await own.stopDaemon("SIGKILL")
    await terminal.shows("the connection to the daemon was lost; the session keeps running")
    await terminal.shows(`bhatti shell dev ${id}`)
    await terminal.shows("code=125")
    await isBack(terminal)
    await own.startDaemon()
    await attach(terminal, `dev ${id}`)
    await terminal.shows("still-23")
    // The same shell, which goes on where it was.
    await terminal.run("echo in-$PWD-$kept")
    await terminal.shows("in-/var-34")
    await terminal.run("exit")
    await terminal.shows("code=0")
  })

  test("a flood of output neither breaks nor holds the terminal", async () => {
    await using terminal = await openTerminal()
    await newSession(terminal)
    await terminal.run("head -c 4000000 /dev/zero | tr '\\0' x; echo; echo flood-$((5+5))")
    await terminal.shows("flood-10")
    await terminal.run("yes")
    await terminal.shows("y\ny\ny")
    await pressWhileRuns(terminal, "C-c", "yes")
    await terminal.run("echo calm-$((6+6))")
    await terminal.shows("calm-12")
    await terminal.run("exit")
    await terminal.shows("code=0")
  })

  test("a pasted text arrives whole", async () => {
    await using terminal = await openTerminal()
    await newSession(terminal)
    await terminal.run("stty -echo; cat > pasted")
    const line = `${"0123456789".repeat(20)}\n`
    for (let piece = 0; piece < 20; piece++) await terminal.type(line.repeat(10))
    await terminal.press("C-d")
    await terminal.run("stty echo; echo done-$(wc -c < pasted)")
    await terminal.shows(`done-${line.length * 200}`)
    await terminal.run("exit")
    await terminal.shows("code=0")
  })

  test("the init session is there by name, and a new one only when asked for", async () => {
    const init = "echo from-init; while read line; do echo got-$line; done"
    expect((await own.bhatti(["create", "--name", "made", "--init", init])).exitCode).toBe(0)
    await using terminal = await openTerminal()
    await attach(terminal, "made init")
    await terminal.shows("from-init")
    await terminal.run("x1")
    await terminal.shows("got-x1")
    await terminal.press("C-\\")
    await terminal.shows("bhatti shell made init")
    await attach(terminal, "made")
    await terminal.shows("lohar@made:/workspace$")
    expect((await sessions("made")).length).toBe(2)
    await terminal.run("exit")
    await terminal.shows("code=0")
    expect((await own.bhatti(["destroy", "-y", "made"])).exitCode).toBe(0)
  })

  test("a sandbox or session that is not there is told, with a working terminal after it", async () => {
    for (const [args, words] of [
      ["nosuch", "bhatti: no sandbox"],
      ["dev s999", "bhatti: no process"],
    ] as const) {
      await using terminal = await openTerminal()
      await attach(terminal, args)
      await terminal.shows(words)
      await terminal.shows("code=125")
      await isBack(terminal)
    }
  })
})

test("without a terminal it says to use exec", async () => {
  const { exitCode, stderr } = await own.bhatti(["shell", "dev"])
  expect(exitCode).toBe(125)
  expect(stderr).toContain("bhatti exec dev -- COMMAND")
})

test("a message without a meaning, as of a hidden window, is not typed into the shell", async () => {
  const socket = new WebSocket(`${own.url.replace("http", "ws")}/sandboxes/dev/ws?new=true`, {
    headers: { authorization: `Bearer ${own.key}` },
  })
  socket.binaryType = "arraybuffer"
  let shown = ""
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) shown += Buffer.from(data).toString()
  }
  try {
    await until("the prompt", () => shown.includes("$ "), { deadlineMs: 60_000 })
    socket.send(JSON.stringify({ type: "resize", rows: 0, cols: 0 }))
    socket.send(JSON.stringify({ type: "resize", rows: "40", cols: 100 }))
    socket.send(JSON.stringify({ type: "resize", rows: 3000, cols: 5000 }))
    socket.send(Buffer.from("echo {size:$(stty size)}\n"))
    await until("the answer", () => shown.includes("{size:3000 5000}"), { deadlineMs: 60_000 })
    expect(shown).not.toContain("resize")
  } finally {
    socket.close()
  }
}, 180_000)

test("ps and kill", async () => {
  expect((await own.bhatti(["create", "--name", "kills", "--init", "sleep 1000"])).exitCode).toBe(0)
  const listed = await own.bhatti(["ps", "kills"])
  expect(listed.stdout).toMatch(
    /^ID +NAME +KIND +COMMAND +STATE +ATTACHED +STARTED\ns1 +init +session +.*running +no /,
  )
  expect((await own.bhatti(["kill", "kills", "init", "--signal", "TERM"])).exitCode).toBe(0)
  await until("the session's end", async () => (await sessions("kills")).every(({ running }) => !running))
  expect((await own.bhatti(["ps", "kills"])).stdout).toContain("killed by TERM")
  const gone = await own.bhatti(["kill", "kills", "s99"])
  expect(gone.exitCode).toBe(1)
  expect(gone.stderr).toContain("s99")
  expect((await own.bhatti(["destroy", "-y", "kills"])).exitCode).toBe(0)
})
