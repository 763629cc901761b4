/** `bhatti shell` at a real terminal, against a session that does as it is told. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import { connect } from "@bhatti/sdk/client"
import { floodBytes } from "../support/fake-programs.ts"
import { Daemon } from "./daemon.ts"
import { bhatti, until } from "./program.ts"
import { Screen } from "./screen.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
  daemon.host.sessionProgram = "keys"
  await daemon.sandbox("dev", { init: "serve" })
})
afterEach(() => daemon[Symbol.asyncDispose]())

async function open(args = "dev"): Promise<Screen> {
  const screen = new Screen(daemon)
  await screen.bhatti(`shell ${args}`)
  await screen.shows("size 30x100 xterm\r\n")
  return screen
}

test("the session gets our size, every key, and its exit code is ours", async () => {
  await using screen = await open()
  expect(daemon.lastShell.query).toMatchObject({ new: "false", window: limits.execStreamWindowBytes })
  expect(daemon.lastShell.query.session).toBeUndefined()
  screen.resize({ cols: 120, rows: 40 })
  await screen.shows("resized 40x120\r\n")
  screen.type("\x03\x1a\x04")
  await screen.shows("key 3\r\nkey 1a\r\nkey 4\r\n")
  screen.type("q")
  await screen.shows("code=5")
  await screen.restored()
})

for (const [name, keys] of [
  ["Ctrl+\\", "\x1c"],
  ["Ctrl+\\ of the kitty protocol", "\x1b[92;5u"],
  ["Ctrl+\\ of modifyOtherKeys", "\x1b[27;5;92~"],
] as const)
  test(`${name} detaches after what was typed before it`, async () => {
    await using screen = await open()
    screen.type(`xy${keys}z`)
    await screen.shows("detached; it keeps running. Come back: bhatti shell dev s2")
    await screen.shows("code=0")
    await screen.restored()
    await until("the session to be let go", () => daemon.lastShell.isClosed)
    expect(screen.text).not.toContain("key 7a")
  })

test("sessions are chosen by id or name, and a new one is asked for", async () => {
  for (const [args, query, again] of [
    ["dev init", { session: "init", new: "false" }, "bhatti shell dev init"],
    ["dev --new", { new: "true" }, "bhatti shell dev s2"],
    ["dev s2", { session: "s2", new: "false" }, "bhatti shell dev s2"],
    ["dev --new", { new: "true" }, "bhatti shell dev s3"],
  ] as const) {
    await using screen = await open(args)
    expect(daemon.lastShell.query).toMatchObject(query)
    screen.type("\x1c")
    await screen.shows(again)
  }
})

test("without SANDBOX it is the only one there is", async () => {
  await using screen = await open("")
  screen.type("q")
  await screen.shows("code=5")
  await daemon.sandbox("two")
  await using second = new Screen(daemon)
  await second.bhatti("shell")
  await second.shows("there are 2 sandboxes; say which one")
  await second.shows("code=125")
})

test("taken over, lost, failed or babbled at: told, and the terminal is given back", async () => {
  for (const [what, ...told] of [
    ["t", "another client has taken this session over. Take it back: bhatti shell dev s2"],
    [
      "d",
      "bhatti: the connection to the daemon was lost; the session keeps running",
      "try: bhatti shell dev s2",
    ],
    ["b", "bhatti: the daemon sent something that is not a message"],
    ["e", "bhatti: too much is typed; the session keeps running"],
  ] as const) {
    await using screen = await open("dev")
    if (what === "d") daemon.lastShell.cut()
    else if (what === "b") daemon.lastShell.babble("no JSON at all")
    else if (what === "e") screen.type("e")
    else await takeOver("s2")
    for (const text of told) await screen.shows(text)
    await screen.shows("code=125")
    await screen.restored()
  }
})

/** Comes to a session as another client, and leaves it again. */
async function takeOver(session: string): Promise<void> {
  const other = connect({ url: daemon.url, token: daemon.key }).shellStream("dev", {
    session,
    rows: 24,
    cols: 80,
  })
  await other.output.next()
  other.close()
}

test("lost with its sandbox: what happened to both", async () => {
  for (const [method, path, ...told] of [
    [
      "POST",
      "/sandboxes/dev/stop",
      'bhatti: the sandbox "dev" was stopped; the session is kept',
      "try: bhatti shell dev s2",
    ],
    ["DELETE", "/sandboxes/dev", 'bhatti: the sandbox "dev" was destroyed, and the session with it'],
  ] as const) {
    await using screen = await open(`dev ${method === "POST" ? "" : "--new"}`)
    await daemon.call(method, path)
    for (const text of told) await screen.shows(text)
    await screen.shows("code=125")
    await screen.restored()
    expect(screen.text).not.toContain("keeps running")
  }
})

test("a session that is not there: where to look for those that are", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("shell dev missing")
  await screen.shows('bhatti: no process "missing"\r\n  try: bhatti ps dev\r\n')
  await screen.shows("code=125")
  await screen.restored()
})

test("what the session has switched on the screen is switched back when we leave", async () => {
  await using screen = await open()
  screen.type("a")
  await screen.shows("full screen")
  screen.type("\x1c")
  await screen.shows("detached")
  const after = screen.text.slice(screen.text.indexOf("full screen"))
  for (const undo of ["\x1b[?25h", "\x1b[?2004l", "\x1b[?1049l"]) expect(after).toContain(undo)
  await screen.restored()
})

for (const [signal, code] of [
  ["SIGTERM", 143],
  ["SIGHUP", 129],
  ["SIGINT", 130],
  ["SIGQUIT", 131],
] as const)
  test(`${signal} detaches`, async () => {
    await using screen = await open()
    process.kill(await screen.programPid(), signal)
    await screen.shows("Come back")
    await screen.shows(`code=${code}`)
    await screen.restored()
  })

test("output is acknowledged as it is shown, and no more than the window is on its way", async () => {
  await using screen = await open()
  screen.type("f")
  await until("the flood", () => screen.text.includes("flooded"), 30_000)
  expect(screen.text.length).toBeGreaterThan(floodBytes)
  // The fake's own words around the flood do not wait.
  expect(daemon.lastShell.unacknowledgedMax).toBeLessThan(limits.execStreamWindowBytes + 100)
  screen.type("q")
  await screen.shows("code=5")
})

test("without a terminal it names exec", async () => {
  const ran = await bhatti(["shell", "dev"], { daemon })
  expect(ran).toEqual({
    stdout: "",
    stderr: "bhatti: shell needs a terminal for input and output\n  try: bhatti exec dev -- COMMAND\n",
    exitCode: 125,
  })
  expect(daemon.shells).toEqual([])
})

test("no sandbox, no daemon", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("shell nosuch")
  await screen.shows('no sandbox named "nosuch"')
  await screen.shows("code=125")
  await screen.restored()
  await using lonely = new Screen(daemon, { BHATTI_URL: "http://127.0.0.1:9" })
  await lonely.bhatti("shell dev")
  await lonely.shows("no bhatti daemon answers")
  await lonely.restored()
})
