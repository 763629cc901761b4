/**
 * The effect on a sandbox and the API of a neighbour that uses all it can get: the same requests beside one that
 * rests and beside one that makes trouble, a new one every time. The claim is about the 95th percentiles.
 */

import { connect, type Socket } from "node:net"
import type { Bench, Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"
import type { Row } from "../row.ts"

const name = "bench"
const neighbour = "bench-neighbour"
const kinds = ["exec", "list"] as const
/** Requests in each round, of each kind. */
const requests = 5
/** The time that a neighbour gets to reach full load. */
const leadMs = 700
/** Fewer than one client may have. */
const idleConnections = 1900
const execRatioMax = 3
const listMsMax = 50

type Trouble = (bench: Bench) => Promise<AsyncDisposable>

const troubles: Record<string, Trouble> = {
  computes: inGuest("while :; do :; done"),
  "is a fork bomb": inGuest(`exec python3 -c '
import os
while True:
    try: os.fork()
    except OSError: pass
'`),
  "takes all memory": inGuest(`while :; do python3 -c '
x = []
while True: x.append(bytearray(1 << 20))
'; done`),
  "fills its disk": inGuest(
    "while :; do dd if=/dev/zero of=/workspace/full bs=1M count=64 conv=fsync oflag=append 2>/dev/null || rm /workspace/full; done",
  ),
  "makes files without end": inGuest(`exec python3 -c '
import itertools, os
for n in itertools.count():
    os.makedirs(f"/workspace/{n}")
    for i in range(1000): open(f"/workspace/{n}/{i}", "w").close()
'`),
  "floods who reads it": inGuest("exec yes", { isRead: true }),
  "floods who reads nothing": inGuest("exec yes"),
  "holds idle connections": holdConnections,
}

export const neighbours: Group = {
  name: "neighbours",
  summary: "exec true and the API beside a neighbour that uses up what it has",
  settings: { pool: 0 },
  async measure(bench) {
    const { bhatti, rounds } = bench
    await using undo = new AsyncDisposableStack()
    await bhatti.cli("create", "--name", name)
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))
    const visit = (what: string, trouble: Trouble) => async () => {
      await using undo = new AsyncDisposableStack()
      await bhatti.cli("create", "--name", neighbour)
      undo.defer(async () => void (await bhatti.cli("destroy", neighbour, "--yes")))
      undo.use(await trouble(bench))
      await Bun.sleep(leadMs)
      const values: Record<string, number> = {}
      for (let count = 0; count < requests; count++) {
        const answers = {
          exec: await bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] }),
          list: await bhatti.api("GET", "/sandboxes"),
        }
        for (const kind of kinds) values[`${kind} ${what} ${count}`] = answers[kind].ms
      }
      return values
    }
    const subjects = [
      visit("rests", async () => new AsyncDisposableStack()),
      ...Object.entries(troubles).map(([what, trouble]) => visit(what, trouble)),
    ]
    const measured = await measureInTurns(subjects, rounds)
    const samplesOf = (kind: (typeof kinds)[number], what: string) =>
      Array.from({ length: requests }, (_, count) => measured[`${kind} ${what} ${count}`] ?? []).flat()
    return Object.keys(troubles).flatMap((what): Row[] => [
      {
        what: `exec true, the neighbour ${what}`,
        unit: "ms",
        samples: samplesOf("exec", what),
        peer: { what: "it rests", samples: samplesOf("exec", "rests") },
        promise: { p95RatioMax: execRatioMax },
      },
      {
        what: `list sandboxes, the neighbour ${what}`,
        unit: "ms",
        samples: samplesOf("list", what),
        peer: { what: "it rests", samples: samplesOf("list", "rests") },
        promise: { p95Max: listMsMax },
      },
    ])
  },
}

/** The script runs in the neighbour until it is disposed of. */
function inGuest(script: string, options: { isRead?: boolean } = {}): Trouble {
  return async ({ bhatti }) => {
    const words = ["exec", neighbour, "--", "sh", "-c", `echo begun; ${script}`]
    const command = bhatti.installation.start(words)
    command.stdin.end()
    const reader = command.stdout.getReader()
    await reader.read()
    const readAll = async () => {
      while (!(await reader.read()).done);
    }
    const reading = options.isRead ? readAll() : Promise.resolve()
    return {
      async [Symbol.asyncDispose]() {
        command.kill("SIGKILL")
        await Promise.all([command.exited, reading])
      },
    }
  }
}

async function holdConnections({ bhatti }: Bench): Promise<AsyncDisposable> {
  const { hostname, port } = new URL(bhatti.installation.url)
  const sockets: Socket[] = []
  for (let count = 0; count < idleConnections; count++) {
    const socket = connect({ host: hostname, port: Number(port) })
    sockets.push(socket)
    await new Promise<void>((ready, fail) => socket.once("connect", () => ready()).once("error", fail))
  }
  return {
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
    },
  }
}
