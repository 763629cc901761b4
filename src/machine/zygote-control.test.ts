/** Zygotes that break the protocol: one hangs, one claims to have forked a machine, one ends. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs"
import { until } from "../../test/support/installation.ts"
import { identityOf, isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { forkZygote, zygoteSocket } from "./zygote-control.ts"

const zygote = `
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen()
if sys.argv[2] == "end": s.close()
os.write(1, b"ready\\n")
if sys.argv[2] != "lie": time.sleep(60)
c, _ = s.accept()
c.recv(100)
c.send(b"ok")
c.recv(100)
`

let directory = ""
let output = -1
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-zygote-")
  output = openSync("/dev/null", "w")
})
afterEach(() => {
  closeSync(output)
  rmSync(directory, { recursive: true })
})

async function start(what: "hang" | "lie" | "end") {
  const python = Bun.spawn(["python3", "-c", zygote, zygoteSocket(directory), what], { stdout: "pipe" })
  await python.stdout.getReader().read()
  return { python, process: identityOf(python.pid) as ProcessIdentity }
}

const fork = (process: ProcessIdentity, deadlineMs: number) =>
  forkZygote(
    { directory, process },
    {
      files: {},
      output,
      confinement: {
        jail: { launcher: "", root: "" },
        level: "full",
        uid: 1234,
        cgroup: undefined,
        ...{ fileBytesMax: 0, groups: [], devices: [] },
      },
      deadlineMs,
    },
  )

test("one that lets the deadline pass is ended, since its queue holds the machine's files", async () => {
  const { process } = await start("hang")
  await expect(fork(process, 50)).rejects.toThrow("the zygote did not answer in time")
  await until("it has ended", () => !isAlive(process))
})

test("no process is a machine that the daemon has not found confined", async () => {
  const { python, process } = await start("lie")
  await expect(fork(process, 5000)).rejects.toThrow("is not the process that was found confined")
  await python.exited
})

test("one that ends while a fork waits for it ends the wait", async () => {
  const { python, process } = await start("end")
  const forking = fork(process, 60_000)
  python.kill()
  await expect(forking).rejects.toThrow("the zygote takes no connection")
})
