/** Users on real machines: what is one's does not exist for another, and a key that is taken away ends what is open. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { askSocket, sampleRequests } from "../http/samples.ts"
import { connectRaw } from "../proxy/stage.ts"
import { binary, type Installation, install, patience, until } from "../support/installation.ts"
import { Tmux, tmuxIsThere } from "../support/tmux.ts"

let own: Installation
let alice = ""
let bob = ""
let alices = ""
beforeAll(async () => {
  own = await install()
  alice = own.key
  bob = await own.addUser("bob")
  const made = await own.bhatti(["create", "--name", "dev", "--label", "whose=alice", "--json"])
  alices = JSON.parse(made.stdout).id
  await own.bhatti(["exec", "dev", "--", "sh", "-c", "echo mine > /workspace/note"])
  expect((await own.bhatti(["publish", "dev", "-p", "3000", "-a", "alices"])).exitCode).toBe(0)
  expect((await own.bhatti(["secret", "set", "TOKEN"], { stdin: "alices-secret" })).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const operate = (...args: string[]) => own.bhatti(["user", ...args, "--data-dir", own.dataDir])
const asBob = (...args: string[]) => own.bhatti(args, { key: bob, stdin: "bob" })

describe("another user's sandbox", () => {
  test("does not exist on any endpoint of the running daemon, by name or by id", async () => {
    const before = JSON.parse((await own.bhatti(["inspect", "dev", "--json"])).stdout)
    const headers = { authorization: `Bearer ${bob}` }
    for (const request of [...sampleRequests("dev"), ...sampleRequests(alices)]) {
      if (!request.isOfSandbox) continue
      const { name, method, path, body, messages } = request
      if (messages) {
        const { message } = await askSocket(own.url, request, headers)
        expect([name, message]).toMatchObject([name, { type: "error", code: "not_found" }])
        continue
      }
      const answer = await fetch(own.url + path, { method, headers, ...(body !== undefined && { body }) })
      expect([name, answer.status]).toEqual([name, 404])
      expect(await answer.text()).not.toContain("tester")
    }
    expect(JSON.parse((await own.bhatti(["inspect", "dev", "--json"])).stdout)).toEqual(before)
  })

  test("is in no listing", async () => {
    for (const args of [
      ["list", "--json"],
      ["secret", "list", "--json"],
    ])
      expect(JSON.parse((await asBob(...args)).stdout)).toEqual([])
  })

  test("is not there for any command", async () => {
    const commands = [
      ["inspect", alices],
      ["exec", alices, "--", "true"],
      ["ps", alices],
      ["kill", alices, "s1"],
      ["file", "read", alices, "/workspace/note"],
      ["file", "write", alices, "/workspace/note"],
      ["file", "ls", alices, "/"],
      ["file", "rm", alices, "/workspace/note"],
      ["file", "mkdir", alices, "/workspace/d"],
      ["file", "mv", alices, "/workspace/note", "/workspace/n"],
      ["file", "stat", alices, "/workspace/note"],
      ["cp", `${alices}:/workspace/note`, "-"],
      ["cp", "-", `${alices}:/workspace/note`],
      ["publish", alices, "-p", "3001"],
      ["publish", alices, "--list"],
      ["unpublish", alices, "-p", "3000"],
      ["ports", alices],
      ["stop", alices],
      ["start", alices],
      ["why", alices],
      ["edit", alices, "--name", "bobs"],
      ["create", "--name", "copy", "--from", alices],
      ["destroy", "-y", alices],
    ]
    for (const args of commands) {
      const { exitCode, stdout, stderr } = await asBob(...args)
      expect([args[0], exitCode === 0, stdout]).toEqual([args[0], false, ""])
      expect([args[0], stderr]).toEqual([args[0], expect.stringContaining("no sandbox named")])
    }
    expect((await own.bhatti(["exec", "dev", "--", "ls", "/workspace"])).stdout).toBe("note\n")
    expect(own.machines()).toHaveLength(1)
  }, 120_000)

  test("a name of one's own is another sandbox, and an alias is taken for everybody", async () => {
    expect((await asBob("create", "--name", "dev")).exitCode).toBe(0)
    expect((await asBob("exec", "dev", "--", "cat", "/workspace/note")).exitCode).not.toBe(0)
    const taken = await asBob("publish", "dev", "-p", "3000", "-a", "alices")
    expect(taken.exitCode).toBe(1)
    expect(taken.stderr).toContain("alices")
    expect(taken.stderr).not.toContain("tester")
    expect((await asBob("create", "--name", "x", "--secret", "TOKEN")).stderr).toContain("no secret")
    expect((await asBob("destroy", "-y", "dev")).exitCode).toBe(0)
    expect((await own.bhatti(["file", "read", "dev", "/workspace/note"])).stdout).toBe("mine\n")
  })
})

describe("a key that is rotated while it is in use", () => {
  let carol = ""
  beforeAll(async () => {
    carol = await own.addUser("carol")
    expect((await own.bhatti(["create", "--name", "dev"], { key: carol })).exitCode).toBe(0)
  }, 120_000)
  const rotate = async () => {
    carol = JSON.parse((await operate("rotate-key", "carol", "--json")).stdout).key
    return performance.now()
  }
  const runs = async (pattern: string) =>
    (await own.bhatti(["exec", "dev", "--", "pgrep", "-f", pattern], { key: carol })).exitCode === 0

  test("ends a command within a second, here and in the guest", async () => {
    const child = own.start(["exec", "dev", "--", "sh", "-c", "echo up; exec sleep 4321"], { key: carol })
    child.stdin.end()
    await child.stdout.getReader().read()
    const rotatedAt = await rotate()
    expect(await child.exited).toBe(125)
    expect(performance.now() - rotatedAt).toBeLessThan(1000 * patience)
    expect(await new Response(child.stderr).text()).toStartWith("bhatti: the API key is not valid any more\n")
    await until("the command is gone", async () => !(await runs("sleep 4321")))
  })

  test("ends an upload and a download, of which nothing is left", async () => {
    await own.bhatti(["exec", "dev", "--", "truncate", "-s", "80M", "whole"], { key: carol })
    const upload = own.start(["file", "write", "dev", "half"], { key: carol })
    upload.stdin.write(new Uint8Array(1024 * 1024))
    await upload.stdin.flush()
    const list = async () =>
      (await own.bhatti(["exec", "dev", "--", "sudo", "ls", "-l", "/proc/1/fd"], { key: carol })).stdout
    await until("the upload to have begun", async () => (await list()).includes("/workspace/#"))
    const download = own.start(["file", "read", "dev", "whole"], { key: carol })
    download.stdin.end()
    const reader = download.stdout.getReader()
    await reader.read()
    const rotatedAt = await rotate()
    expect(await upload.exited).toBe(1)
    expect(performance.now() - rotatedAt).toBeLessThan(1000 * patience)
    expect(await new Response(upload.stderr).text()).toContain("the API key is not valid any more")
    while (!(await reader.read()).done);
    expect(await download.exited).toBe(1)
    expect(await new Response(download.stderr).text()).toStartWith("bhatti: ")
    await until("the rest to be gone", async () => !(await list()).includes("/workspace/#"))
    expect((await own.bhatti(["file", "stat", "dev", "half"], { key: carol })).exitCode).toBe(1)
  })

  test("does nothing with a request that was begun with it and comes whole later", async () => {
    const port = Number(new URL(own.url).port)
    const begun = [
      ["POST", "/sandboxes", '{"name":"late"}'],
      ["POST", "/sandboxes/dev/exec", '{"cmd":["touch","/workspace/late-exec"]}'],
      ["PUT", "/sandboxes/dev/files?path=/workspace/late-file", "text"],
      ["POST", "/sandboxes/dev/files/mkdir", '{"path":"/workspace/late-directory"}'],
      ["POST", "/secrets", '{"name":"LATE","value":"x"}'],
    ] as const
    const open = await Promise.all(
      begun.map(async ([method, path, body]) => {
        const head = [`${method} ${path} HTTP/1.1`, "Host: localhost", `Authorization: Bearer ${carol}`]
        const rest = [`Content-Length: ${body.length}`, "Expect: 100-continue", "Connection: close", "", ""]
        const connection = await connectRaw(port, [...head, ...rest].join("\r\n"))
        await until("its body is wanted", () => connection.answer().includes("100 Continue"))
        connection.socket.write(body.slice(0, 2))
        return { connection, rest: body.slice(2) }
      }),
    )
    await rotate()
    for (const { connection, rest } of open) connection.socket.write(rest)
    for (const { connection } of open) {
      await until("it is answered", () => connection.isClosed())
      expect(connection.answer()).toContain("HTTP/1.1 401 ")
    }
    expect((await own.bhatti(["list", "-q"], { key: carol })).stdout).toBe("dev\n")
    expect((await own.bhatti(["file", "ls", "dev", "/workspace"], { key: carol })).stdout).not.toContain(
      "late",
    )
    expect((await own.bhatti(["secret", "list"], { key: carol })).stdout).not.toContain("LATE")
  })

  test.if(tmuxIsThere)("ends a terminal, says why, and keeps its session for the new key", async () => {
    await using terminal = await Tmux.open({ env: { BHATTI_URL: own.url, BHATTI_TOKEN: carol } })
    await terminal.run(`clear; ${binary} shell dev --new; echo "co""de=$?"`)
    await terminal.shows("lohar@dev:/workspace$")
    await terminal.run("echo se-$((40+2))en")
    await terminal.shows("se-42en")
    await rotate()
    await terminal.shows("the API key is not valid any more; the session keeps running")
    await terminal.shows("code=125")
    expect(await terminal.modes()).toContain("echo")
    const sessions = await own.bhatti(["ps", "dev", "--json"], { key: carol })
    expect(JSON.parse(sessions.stdout)).toMatchObject([{ running: true, attached: false }])
  })

  test("nobody else's streams notice", async () => {
    const child = own.start(["exec", "-i", "dev", "--", "cat"], { key: alice })
    child.stdin.write("one\n")
    await child.stdin.flush()
    const reader = child.stdout.getReader()
    await reader.read()
    await rotate()
    expect((await own.bhatti(["list"], { key: carol })).exitCode).toBe(0)
    child.stdin.write("two\n")
    child.stdin.end()
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("two\n")
    expect(await child.exited).toBe(0)
  })

  test("delete is refused while the user has sandboxes, then takes the key away", async () => {
    const refused = await operate("delete", "carol", "-y")
    expect(refused.exitCode).toBe(1)
    expect(refused.stderr).toContain("1 sandbox")
    expect((await own.bhatti(["destroy", "-y", "dev"], { key: carol })).exitCode).toBe(0)
    expect((await operate("delete", "carol", "-y")).exitCode).toBe(0)
    expect((await own.bhatti(["list"], { key: carol })).stderr).toContain("the API key is not valid")
  })

  test("a lower limit holds from the next create on", async () => {
    await operate("edit", "bob", "--max-sandboxes", "0", "--max-cpus", "1")
    const refused = await asBob("create")
    expect(refused.exitCode).toBe(1)
    expect(refused.stderr).toContain("limit")
  })
})
