/**
 * scripts/clients.sh, the last step of install.sh, in a folder of its own: what is served when several want something
 * else.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { until } from "../support/installation.ts"

const script = join(resolve(import.meta.dir, "../.."), "scripts/clients.sh")
let home = ""
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "bhatti-clients-"))
  mkdirSync(join(home, "data"))
  // In place of a checkout's build: it waits until it may end.
  writeFileSync(
    join(home, "bun"),
    `#!/bin/bash
while [[ $1 != --out ]]; do shift; done
echo >>"${home}/builds"
until [[ -e "${home}/may-end" ]]; do sleep 0.02; done
mkdir -p "$2" && cd "$2" && echo built >bhatti.gz && sha256sum bhatti.gz >SHA256SUMS
`,
  )
  chmodSync(join(home, "bun"), 0o755)
})
afterEach(async () => {
  letEnd()
  await until("what runs in the background ends", () => !isAnyAtWork())
  rmSync(home, { recursive: true })
})

function isAnyAtWork(): boolean {
  return readdirSync("/proc").some((pid) => /^\d+$/.test(pid) && wordsOf(pid).includes(home))
}

function wordsOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8")
  } catch {
    return ""
  }
}

/** As install.sh calls it. */
function installClients(options: { program: string; clients?: string; isArchive?: boolean }): string {
  const { program, clients = "", isArchive = false } = options
  writeFileSync(join(home, "program"), program)
  const log = join(home, `log-${program}`)
  const ran = Bun.spawnSync([
    ...["bash", "-eu", "-c"],
    `data_dir="${home}/data" root="${home}" bun="${home}/bun" built="${home}/program" clients_log="${log}"
    clients="${clients}" makes_clients=yes
    say() { echo "$*"; }
    fail() { echo "error: $*"; exit 1; }
    is_archive() { ${isArchive}; }
    listen_address() { echo 127.0.0.1:1; }
    source "${script}"
    exec 3>&1
    install_clients`,
  ])
  expect([ran.stderr.toString(), ran.exitCode]).toEqual(["", 0])
  return log
}

function folder(content: string): string {
  const made = join(home, `release-${content}`)
  mkdirSync(made)
  writeFileSync(join(made, "bhatti.gz"), content)
  const sum = new Bun.CryptoHasher("sha256").update(content).digest("hex")
  writeFileSync(join(made, "SHA256SUMS"), `${sum}  bhatti.gz\n`)
  return made
}

const served = () => readFileSync(join(home, "data/clients/bhatti.gz"), "utf8").trim()
const builds = () =>
  existsSync(join(home, "builds")) ? readFileSync(join(home, "builds"), "utf8").length : 0
const letEnd = () => writeFileSync(join(home, "may-end"), "")
const ended = (log: string, words: string) =>
  until(words, () => existsSync(log) && readFileSync(log, "utf8").includes(words))

test("a build in the background does not replace a folder that was named while it ran", async () => {
  const log = installClients({ program: "one" })
  await until("it builds", () => builds() === 1)
  installClients({ program: "one", clients: folder("named") })
  expect(served()).toBe("named")
  letEnd()
  await ended(log, "a later install.sh wants others")
  expect(served()).toBe("named")
})

test("the build of the newest program is what is served, and one that runs already is not made twice", async () => {
  const first = installClients({ program: "one" })
  await until("it builds", () => builds() === 1)
  installClients({ program: "one" })
  const newer = installClients({ program: "two" })
  letEnd()
  await ended(first, "wants others")
  await ended(newer, "get one with")
  const stamp = Bun.spawnSync(["sha256sum"], { stdin: new TextEncoder().encode("two") }).stdout.toString()
  expect(readFileSync(join(home, "data/clients/made-for"), "utf8")).toBe(stamp)
  expect(served()).toBe("built")
})

test("a build serves what it made, and the same again has nothing to do", async () => {
  letEnd()
  const log = installClients({ program: "one" })
  await ended(log, "get one with")
  expect(served()).toBe("built")
  installClients({ program: "one" })
  expect(builds()).toBe(1)
})
