/** Files of a sandbox on real machines: whole, exact, streamed, and safe on this side. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  chmodSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "@bhatti/sdk/client"
import { descriptors } from "../../src/machine/command-line.ts"
import { type CommandResult, type Installation, install, until } from "../support/installation.ts"
import { residentMib } from "../support/resident.ts"

const megabyte = 1024 * 1024
let own: Installation
let here = ""
beforeAll(async () => {
  here = mkdtempSync(join(tmpdir(), "bhatti-files-"))
  own = await install()
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(here, { recursive: true })
}, 60_000)

const local = (path: string) => join(here, path)
const exec = (...command: string[]) => own.bhatti(["exec", "dev", "--", ...command])
const asRoot = (script: string) =>
  done(own.bhatti(["exec", "--user", "root", "dev", "--", "sh", "-c", script]))
const sh = async (script: string) => (await exec("sh", "-c", script)).stdout

async function done(running: Promise<CommandResult>): Promise<CommandResult> {
  const result = await running
  expect(result.stderr).toBe("")
  expect(result.exitCode).toBe(0)
  return result
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256")
  for await (const piece of createReadStream(path)) hash.update(piece)
  return hash.digest("hex")
}

async function writtenFile(name: string, megabytes: number): Promise<string> {
  await writeRandom(local(name), megabytes)
  return local(name)
}

/** Random, since zeros are too easy for a disk. */
async function writeRandom(path: string, megabytes: number): Promise<void> {
  const block = crypto.getRandomValues(new Uint8Array(65_536))
  const file = Bun.file(path).writer()
  for (let count = 0; count < megabytes * 16; count++) {
    block[0] = count
    block[1] = count >> 8
    file.write(block)
    await file.flush()
  }
  await file.end()
}

test("the reference: write from a pipe, read, list", async () => {
  const text = 'console.log("hello")\n'
  await done(own.bhatti(["file", "write", "dev", "/workspace/app.js"], { stdin: text }))
  expect((await done(own.bhatti(["file", "read", "dev", "/workspace/app.js"]))).stdout).toBe(text)
  expect((await own.bhatti(["file", "ls", "dev", "/workspace/"])).stdout).toMatch(
    /0644 +lohar +21 .* app\.js\n/,
  )
  expect(await sh("stat -c '%U:%G %a' /workspace/app.js")).toBe("lohar:lohar 644\n")
})

test("modes are kept by a rewrite, and set when asked", async () => {
  await done(own.bhatti(["file", "write", "dev", "run.sh", "--mode", "0750"], { stdin: "1" }))
  await done(own.bhatti(["file", "write", "dev", "run.sh"], { stdin: "2" }))
  expect(await sh("stat -c %a run.sh; cat run.sh")).toBe("750\n2")
})

test("strange names go there and back", async () => {
  const names = ["sp ace", "ünïcødé-日本", "new\nline", "-dash", "quote'\"$(x)", "a".repeat(200)]
  for (const name of names) {
    await done(own.bhatti(["file", "write", "dev", "--", `odd/${name}`], { stdin: name }))
    expect((await done(own.bhatti(["file", "read", "dev", "--", `odd/${name}`]))).stdout).toBe(name)
  }
  const listed = JSON.parse((await own.bhatti(["file", "ls", "dev", "odd", "--json"])).stdout)
  expect(listed.map((one: { name: string }) => one.name).sort()).toEqual([...names].sort())
  expect((await own.bhatti(["file", "ls", "dev", "odd"])).stdout).toContain("new\\nline\n")
  await done(own.bhatti(["cp", "dev:odd", local("odd")]))
  expect(readdirSync(local("odd")).sort()).toEqual([...names].sort())
  await done(own.bhatti(["cp", local("odd"), "dev:odd-again"]))
  expect(await sh("diff -r odd odd-again && echo same")).toBe("same\n")
})

test("mkdir, mv, stat, rm", async () => {
  await done(own.bhatti(["file", "mkdir", "dev", "deep/er/est", "--mode", "0700"]))
  await done(own.bhatti(["file", "write", "dev", "deep/er/est/f"], { stdin: "x" }))
  await done(own.bhatti(["file", "mv", "dev", "deep/er/est/f", "moved"]))
  const stat = JSON.parse((await own.bhatti(["file", "stat", "dev", "moved", "--json"])).stdout)
  expect(stat).toMatchObject({
    name: "moved",
    size: 1,
    mode: "0644",
    type: "file",
    owner: "lohar",
    is_dir: false,
  })
  expect((await own.bhatti(["file", "rm", "dev", "deep"])).exitCode).toBe(1)
  await done(own.bhatti(["file", "rm", "-r", "dev", "deep", "moved"]))
  expect((await own.bhatti(["file", "stat", "dev", "moved"])).stderr).toContain("moved")
})

test("a directory that is read and a directory that is missing are named, with the next step", async () => {
  const directory = await own.bhatti(["file", "read", "dev", "/workspace"])
  expect(directory.stderr).toBe('bhatti: "/workspace" is a directory\n  try: bhatti file ls dev /workspace\n')
  await done(own.bhatti(["file", "write", "dev", "a"], { stdin: "x" }))
  const nowhere = await own.bhatti(["file", "mv", "dev", "a", "/workspace/no/such/b"])
  expect(nowhere.stderr).toBe(
    'bhatti: no directory "/workspace/no/such"\n  try: bhatti file mkdir dev /workspace/no/such\n',
  )
  expect(nowhere.exitCode).toBe(1)
})

test("--owner of file write, file mkdir and cp decides whom all that is made belongs to", async () => {
  await done(own.bhatti(["file", "write", "dev", "/srv/site/index.html", "--owner", "root"], { stdin: "1" }))
  await done(own.bhatti(["file", "mkdir", "dev", "/srv/data/in", "--owner", "www-data:lohar"]))
  mkdirSync(local("owned/sub"), { recursive: true })
  writeFileSync(local("owned/sub/file"), "1")
  await done(own.bhatti(["cp", local("owned"), "dev:/srv/tree", "--owner", "33"]))
  await done(own.bhatti(["cp", local("owned/sub/file"), "dev:/srv/site/index.html", "--owner", "lohar:root"]))
  expect(await sh("cd /srv; stat -c '%n %U:%G' site site/index.html data data/in tree tree/sub/file")).toBe(
    [
      "site root:root",
      "site/index.html lohar:root",
      "data www-data:lohar",
      "data/in www-data:lohar",
      "tree www-data:www-data",
      "tree/sub/file www-data:www-data\n",
    ].join("\n"),
  )
  const unknown = await own.bhatti(["file", "write", "dev", "/srv/x", "--owner", "nobody-here"], {
    stdin: "1",
  })
  expect(unknown.stderr).toContain('no user "nobody-here"')
  expect(unknown.exitCode).toBe(2)
  expect(await sh("test -e /srv/x || echo nothing")).toBe("nothing\n")
  const wrongWay = await own.bhatti(["cp", "dev:/srv/tree", local("out"), "--owner", "root"])
  expect(wrongWay.stderr).toContain("--owner is for copies into a sandbox")
})

test("a reader never sees half a file", async () => {
  const reader = own.start([
    ...["exec", "dev", "--", "sh", "-c"],
    "echo ready; while [ ! -e stop ]; do [ -e whole ] && stat -c %s whole; done | sort -u",
  ])
  reader.stdin.end()
  const output = new Response(reader.stdout).text()
  for (const megabytes of [4, 2, 6]) {
    await writeRandom(local("whole"), megabytes)
    await done(own.bhatti(["file", "write", "dev", "whole", local("whole")]))
  }
  await done(own.bhatti(["file", "write", "dev", "stop"], { stdin: "" }))
  const sizes = [4, 2, 6].map((megabytes) => String(megabytes * megabyte))
  for (const size of (await output).split("\n").slice(1, -1)) expect(sizes).toContain(size)
}, 120_000)

test("an upload whose client dies leaves the old file, and nothing else", async () => {
  await done(own.bhatti(["file", "write", "dev", "kept/file"], { stdin: "old" }))
  const upload = own.start(["file", "write", "dev", "kept/file"])
  upload.stdin.write(new Uint8Array(2 * megabyte))
  await upload.stdin.flush()
  // It has no name before it is whole.
  await until("the upload to have begun", async () => (await sh("sudo ls -l /proc/1/fd")).includes("/kept/#"))
  upload.kill("SIGKILL")
  await upload.exited
  await until("the rest to be gone", async () => !(await sh("sudo ls -l /proc/1/fd")).includes("/kept/#"))
  expect(await sh("ls -A kept; cat kept/file")).toBe("file\nold")
})

test("100 MB go up and down unchanged, with little memory, while other commands run", async () => {
  await writeRandom(local("big"), 100)
  const idle: number[] = []
  for (let count = 0; count < 10; count++) idle.push((await exec("true")).ms)
  const daemonBefore = residentMib(own.daemonPid(), "VmRSS")
  // From here on its peak is counted anew.
  writeFileSync(`/proc/${own.daemonPid()}/clear_refs`, "5")
  const busy: number[] = []
  for (const [from, to] of [
    [local("big"), "dev:/tmp/big"],
    ["dev:/tmp/big", local("back")],
  ] as const) {
    const copy = own.start(["cp", from, to])
    copy.stdin.end()
    let peak = 0
    while (copy.exitCode === null) {
      const { exitCode, ms } = await exec("true")
      expect(exitCode).toBe(0)
      busy.push(ms)
      if (copy.exitCode === null) peak = Math.max(peak, residentMib(copy.pid, "VmHWM"))
    }
    expect(await copy.exited).toBe(0)
    expect(peak).toBeLessThan(120)
  }
  expect(await sha256(local("back"))).toBe(await sha256(local("big")))
  expect(residentMib(own.daemonPid(), "VmHWM") - daemonBefore).toBeLessThan(32)
  const median = (times: number[]) =>
    times.sort((one, other) => one - other)[Math.floor(times.length / 2)] ?? 0
  console.log(`exec true: idle ${median(idle).toFixed(0)} ms, during copies ${median(busy).toFixed(0)} ms`)
}, 300_000)

/** The memory that the machine shares with this host. */
function sharedBlocks(): number {
  const [pid = 0] = own.machines()
  const path = `/proc/${pid}/fd/${descriptors.shared}`
  expect(readlinkSync(path)).toStartWith("/memfd:bhatti-shared")
  return statSync(path).blocks
}

test("sizes around every bound of the way, one by one and as a directory", async () => {
  const sizes = [0, 1, 16_383, 16_385, 65_535, 65_537, 262_143, 262_145, 1_048_583, 5_000_011]
  mkdirSync(local("sized"))
  for (const size of sizes) {
    const bytes = new Uint8Array(size)
    for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536))
    writeFileSync(local(`sized/${size}`), bytes)
    await done(own.bhatti(["cp", local(`sized/${size}`), `dev:one-by-one/${size}`]))
    await done(own.bhatti(["cp", `dev:one-by-one/${size}`, local("again")]))
    expect(await sha256(local("again")), `${size} bytes`).toBe(await sha256(local(`sized/${size}`)))
  }
  await done(own.bhatti(["cp", local("sized"), "dev:"]))
  expect(await sh("diff -r one-by-one sized && ls sized | wc -l")).toBe(`${sizes.length}\n`)
  await done(own.bhatti(["cp", "dev:sized", local("sized-again")]))
  for (const size of sizes)
    expect(await sha256(local(`sized-again/${size}`))).toBe(await sha256(local(`sized/${size}`)))
  expect(sharedBlocks()).toBe(0)
}, 120_000)

test("six transfers at once keep apart, through shared memory as far as it reaches, and it is given back", async () => {
  const names = ["a", "b", "c", "d", "e", "f"]
  for (const [index, name] of names.entries()) {
    await writeRandom(local(`six-${name}`), 20)
    truncateSync(local(`six-${name}`), 20 * megabyte - index * 1000)
  }
  let isDone = false
  const copying = Promise.all(
    names.map((name) => done(own.bhatti(["cp", local(`six-${name}`), `dev:six-${name}`]))),
  ).finally(() => {
    isDone = true
  })
  await until("the shared memory is used", () => isDone || sharedBlocks() > 0)
  expect(isDone).toBe(false)
  await copying
  expect(sharedBlocks()).toBe(0)
  await Promise.all(names.map((name) => done(own.bhatti(["cp", `dev:six-${name}`, local(`back-${name}`)]))))
  for (const name of names)
    expect(await sha256(local(`back-${name}`)), name).toBe(await sha256(local(`six-${name}`)))
  await sh("rm six-*")
  expect(sharedBlocks()).toBe(0)
}, 120_000)

test("files are whole after the daemon died in a transfer, after a stop, and in a copy of the sandbox", async () => {
  await writeRandom(local("whole"), 50)
  const wanted = await sha256(local("whole"))
  const copies = async (sandbox: string) => {
    await done(own.bhatti(["cp", local("whole"), `${sandbox}:whole`]))
    await done(own.bhatti(["cp", `${sandbox}:whole`, local("whole-again")]))
    expect(await sha256(local("whole-again"))).toBe(wanted)
  }
  await copies("dev")
  await writeRandom(local("other"), 50)
  for (const args of [
    ["cp", local("other"), "dev:whole"],
    ["cp", "dev:whole", local("never")],
  ]) {
    const cut = own.bhatti(args)
    await until("the transfer goes on", () => sharedBlocks() > 0)
    await own.stopDaemon("SIGKILL")
    expect((await cut).exitCode).toBe(1)
    await own.startDaemon()
    expect(await sh("sha256sum < whole")).toBe(`${wanted}  -\n`)
    await copies("dev")
    expect(sharedBlocks()).toBe(0)
  }
  // On a busy host it reports its progress.
  expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
  await copies("dev")
  const uploading = own.bhatti(["cp", local("other"), "dev:whole"])
  await until("the transfer goes on", () => sharedBlocks() > 0)
  expect((await own.bhatti(["create", "--from", "dev", "--name", "copied"])).exitCode).toBe(0)
  await done(uploading)
  const written = await sha256(local("other"))
  expect(await sh("sha256sum < whole")).toBe(`${written}  -\n`)
  // The copy has other memory than the one in which the transfer is going on.
  const inCopy = (await own.bhatti(["exec", "copied", "--", "sha256sum", "whole"])).stdout.slice(0, 64)
  expect([wanted, written]).toContain(inCopy)
  await copies("copied")
  expect((await own.bhatti(["destroy", "copied", "--yes"])).exitCode).toBe(0)
}, 300_000)

test("a range of a file is read, attributes are kept, and a watch tells of everything, also over a stop and a wake", async () => {
  const client = connect({ url: own.url, token: own.key })
  const params = { id: "dev" }
  await sh("seq 100000 > /tmp/numbers; rm -rf /tmp/watched; mkdir -p /tmp/watched/old")
  const range = await client.readFile({ params, query: { path: "/tmp/numbers" }, range: "bytes=-7" })
  expect([range.status, range.headers.get("content-range"), await range.text()]).toEqual([
    206,
    "bytes 588888-588894/588895",
    "100000\n",
  ])

  const body = { path: "/tmp/numbers", set: { "user.kind": "numbers" } }
  expect(await client.setAttributes({ params, body })).toMatchObject({
    attributes: { "user.kind": "numbers" },
  })
  const archive = await client.readArchive({ params, query: { path: "/tmp/numbers" } })
  await client.writeArchive({ params, query: { path: "/var/tmp" }, bytes: await archive.blob() })
  const copy = await client.statFile("dev", "/var/tmp/numbers")
  expect(copy).toMatchObject({ size: 588_895, attributes: { "user.kind": "numbers" } })

  const left = new AbortController()
  const told: string[] = []
  const following = (async () => {
    const changes = client.followFiles(
      "dev",
      { path: "/tmp/watched", recursive: true },
      { signal: left.signal },
    )
    for await (const change of changes)
      told.push(change.type === "watching" ? "watching" : `${change.type} ${change.path} ${change.to ?? ""}`)
  })().catch((error: unknown) => error)
  await until("it watches", () => told.includes("watching"))
  const { watch } = await client.createWatch({ params, body: { path: "/tmp/watched", recursive: true } })
  await sh(
    "cd /tmp/watched; mkdir -p a/b/c; echo x > a/b/c/file; mv a old/moved; chmod 600 old/moved/b/c/file",
  )
  const { events, next } = await client.readWatch({ params: { ...params, watch } })
  const seen = events.map(({ type, path, to }) => `${type} ${path} ${to ?? ""}`)
  for (const one of [
    "create a ",
    "create a/b ",
    "create a/b/c ",
    "create a/b/c/file ",
    "rename a old/moved",
    "chmod old/moved/b/c/file ",
  ])
    expect(seen).toContain(one)
  await until("the stream tells it too", () => told.includes("chmod old/moved/b/c/file "))

  // A stop that takes long says what it does.
  expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
  await sh("echo y > /tmp/watched/later")
  await until("the stream goes on", () => told.includes("write later "))
  const later = await client.readWatch({ params: { ...params, watch }, query: { after: next } })
  expect(later.events.map(({ type, path }) => `${type} ${path}`)).toEqual(["create later", "write later"])
  expect([...told, ...seen].filter((one) => one.startsWith("lost"))).toEqual([])
  left.abort(new Error("enough"))
  await following
})

test("a sparse file of 2 GB stays sparse in both directions, and its holes are not sent", async () => {
  const size = 2048 * megabyte
  truncateSync(await writtenFile("sparse.img", 1), size)
  await done(own.bhatti(["cp", local("sparse.img"), "dev:/tmp/up.img"]))
  const [apparent = 0, blocks = 0] = (await sh("stat -c '%s %b' /tmp/up.img")).split(" ").map(Number)
  expect(apparent).toBe(size)
  expect(blocks * 512).toBeLessThan(3 * megabyte)
  await done(own.bhatti(["cp", "dev:/tmp/up.img", local("down.img")]))
  const copied = statSync(local("down.img"))
  expect([copied.size, copied.blocks * 512 < 3 * megabyte]).toEqual([size, true])
  const head = (path: string) =>
    Bun.file(local(path))
      .slice(0, 2 * megabyte)
      .bytes()
  expect(Buffer.from(await head("down.img")).equals(await head("sparse.img"))).toBe(true)
  mkdirSync(local("sparse"))
  await done(own.bhatti(["exec", "dev", "--", "sh", "-c", "mkdir /tmp/tree && mv /tmp/up.img /tmp/tree/img"]))
  await done(own.bhatti(["cp", "dev:/tmp/tree/.", local("sparse")]))
  expect([
    statSync(local("sparse/img")).size,
    statSync(local("sparse/img")).blocks * 512 < 3 * megabyte,
  ]).toEqual([size, true])
  await sh("rm -r /tmp/tree")
}, 180_000)

test("more than 100 MB: file write refuses and leaves nothing, cp copies", async () => {
  await writeRandom(local("larger"), 101)
  const refused = await own.bhatti(["file", "write", "dev", "larger", local("larger")])
  expect(refused.exitCode).toBe(1)
  expect(refused.stderr).toContain("100 MB")
  const child = own.start(["file", "write", "dev", "larger"])
  for await (const piece of createReadStream(local("larger"))) {
    if (child.exitCode !== null) break
    child.stdin.write(piece)
    await child.stdin.flush()
  }
  child.stdin.end()
  expect(await child.exited).toBe(1)
  expect(await new Response(child.stderr).text()).toContain("100 MB")
  expect(await sh("ls -A | grep -c larger")).toBe("0\n")
  // A large archive passes the guest's page cache, in both directions: 32 MiB of it stay.
  const cachedMib = async () => Number(await sh("awk '/^Cached/ {print $2}' /proc/meminfo")) / 1024
  await asRoot("sync; echo 3 > /proc/sys/vm/drop_caches")
  const before = await cachedMib()
  await done(own.bhatti(["cp", local("larger"), "dev:larger"]))
  const written = await cachedMib()
  await asRoot("sync; echo 3 > /proc/sys/vm/drop_caches")
  const dropped = await cachedMib()
  await done(own.bhatti(["cp", "dev:.", local("all")]))
  const read = await cachedMib()
  expect([written - before < 60, read - dropped < 60]).toEqual([true, true])
  expect((await sh("sha256sum larger")).split(" ")[0]).toBe(await sha256(local("larger")))
  expect(await sha256(local("all/larger"))).toBe(await sha256(local("larger")))
}, 300_000)

test("a cp of more than 100 MB, or of a directory, that breaks off leaves the old file, and nothing else", async () => {
  mkdirSync(local("broken"))
  await writeRandom(local("broken/larger"), 300)
  await sh("mkdir broken && printf old > broken/larger")
  for (const [source, target] of [
    [local("broken/larger"), "dev:broken/larger"],
    [local("broken"), "dev:"],
  ] as const) {
    const copy = own.start(["cp", source, target])
    copy.stdin.end()
    await until("the copy to have begun", async () =>
      (await sh("sudo ls -l /proc/1/fd")).includes("/broken/#"),
    )
    expect(await sh("ls -A broken; cat broken/larger")).toBe("larger\nold")
    copy.kill("SIGINT")
    expect(await copy.exited).toBe(130)
    await until("the rest to be gone", async () => !(await sh("sudo ls -l /proc/1/fd")).includes("/broken/#"))
    expect(await sh("ls -A broken; cat broken/larger")).toBe("larger\nold")
  }
}, 300_000)

test("directories keep links, modes and empty directories; what is special stays behind", async () => {
  mkdirSync(local("tree/empty"), { recursive: true })
  mkdirSync(local("tree/closed"), { mode: 0o700 })
  writeFileSync(local("tree/run"), "#!/bin/sh", { mode: 0o755 })
  writeFileSync(local("tree/shut"), "secret")
  chmodSync(local("tree/shut"), 0)
  symlinkSync("run", local("tree/link"))
  symlinkSync("/etc/hostname", local("tree/absolute"))
  Bun.spawnSync(["mkfifo", local("tree/pipe")])
  const up = await own.bhatti(["cp", local("tree"), "dev:"])
  expect(up.exitCode).toBe(1)
  expect(up.stdout).toEndWith("; 1 left out\n")
  expect(up.stderr).toContain("tree/pipe: it is not a file, directory or link")
  expect(await sh("cd tree && find . -printf '%P %y %m %l %u\\n' | sort | tail -n +2")).toBe(
    [
      "absolute l 777 /etc/hostname lohar",
      "closed d 700  lohar",
      "empty d 755  lohar",
      "link l 777 run lohar",
      "run f 755  lohar",
      "shut f 0  lohar",
      "",
    ].join("\n"),
  )
  await sh("chmod 4755 tree/run; mkfifo tree/pipe; ln tree/run tree/hard; ln -s ../../x tree/out")
  const down = await own.bhatti(["cp", "dev:tree", local("got")])
  expect(down.exitCode).toBe(1)
  expect(down.stdout).toEndWith("; 3 left out\n")
  expect(down.stderr.trim().split("\n").sort()).toEqual([
    "not copied: absolute: its target /etc/hostname may lie outside the copied directory",
    "not copied: out: its target ../../x may lie outside the copied directory",
    "not copied: pipe: it is not a file, directory or link",
  ])
  expect(readdirSync(local("got")).sort()).toEqual(["closed", "empty", "hard", "link", "run", "shut"])
  expect(statSync(local("got/shut")).mode & 0o777).toBe(0)
  expect(readlinkSync(local("got/link"))).toBe("run")
  expect(statSync(local("got/run")).mode & 0o7777).toBe(0o755)
  expect(statSync(local("got/hard")).ino).toBe(statSync(local("got/run")).ino)
})

test("errors of the guest's kernel are told by their name, and its own files are copied with what they hold", async () => {
  const read = await own.bhatti(["file", "read", "dev", "/proc/1/mem"])
  expect(read.exitCode).toBe(1)
  expect(read.stderr).toContain("input/output error")
  expect(read.stderr).not.toContain("internal")
  const down = await own.bhatti(["cp", "dev:/proc/sys/net/ipv4/route", local("route")])
  expect(down).toMatchObject({ exitCode: 1, stderr: "not copied: flush: permission denied\n" })
  expect(down.stdout).toEndWith("; 1 left out\n")
  expect(readFileSync(local("route/gc_timeout"), "utf8")).toBe(
    await sh("cat /proc/sys/net/ipv4/route/gc_timeout"),
  )
})

test("cp through pipes", async () => {
  await done(own.bhatti(["cp", "-", "dev:piped"], { stdin: "through" }))
  expect((await done(own.bhatti(["cp", "dev:piped", "-"]))).stdout).toBe("through")
  const tar = own.start(["cp", "dev:odd", "-"])
  tar.stdin.end()
  const listing = Bun.spawn(["tar", "t"], { stdin: tar.stdout, stdout: "pipe" })
  expect(await new Response(listing.stdout).text()).toContain("odd/sp ace\n")
})

test("what cannot be done is told in one line", async () => {
  chmodSync(here, 0o755)
  for (const [args, exitCode, told] of [
    [["file", "read", "dev", "/nope"], 1, "/nope"],
    [["file", "read", "dev", "/etc"], 2, "/etc"],
    [["file", "ls", "dev", "/etc/passwd"], 2, "/etc/passwd"],
    [["file", "write", "dev", "/proc/x", local("tree/run")], 1, "/proc/x"],
    [["cp", "dev:/nope", local(".")], 1, "there is no dev:/nope"],
    [["cp", local("big"), "nosuch:/x"], 1, 'no sandbox named "nosuch"'],
  ] as const) {
    const ran = await own.bhatti([...args])
    expect({ args, exitCode: ran.exitCode }).toEqual({ args, exitCode })
    expect(ran.stderr).toContain(told)
    expect(ran.stderr).not.toContain("bug in bhatti")
  }
  expect(existsSync(local("nope"))).toBe(false)
})
