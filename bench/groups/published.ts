/**
 * A published port: the reply of a running and of a paused sandbox, and bulk. Every request is one connection. The
 * server in the guest is the smallest there can be, so that what is measured is the way to it.
 */

import { until } from "../../test/support/installation.ts"
import type { Bhatti } from "../bhatti.ts"
import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

const name = "bench"
const port = 8000
const bulkMegabytes = 100
const bulkRoundsMax = 10
/** 60 MB/s. */
const bulkMsMax = Math.round((bulkMegabytes / 60) * 1000)

const server = `
import os, socket
bulk = os.memfd_create("bulk")
os.ftruncate(bulk, ${bulkMegabytes * 1_000_000})
listener = socket.create_server(("127.0.0.1", ${port}), backlog=64)
while True:
    peer, _ = listener.accept()
    head = peer.recv(65536)
    size = ${bulkMegabytes * 1_000_000} if head.startswith(b"GET /bulk") else 0
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % size)
    sent = 0
    while sent < size:
        sent += os.sendfile(peer.fileno(), bulk, sent, size - sent)
    peer.close()
`

export const published: Group = {
  name: "published",
  summary: "requests to a published port",
  settings: { pool: 0, warmAfterSec: 1 },
  async measure({ bhatti, rounds }) {
    await using undo = new AsyncDisposableStack()
    const init = `exec python3 -c '${server}'`
    await bhatti.cli("create", "--name", name, "--init", init)
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))
    const { url } = (await bhatti.api("POST", `/sandboxes/${name}/publish`, { port })).reply as {
      url: string
    }
    const host = new URL(url).host
    await until("the guest's server answers", async () => (await request(bhatti, host, "/")).status === 200)

    const samples = await measureInTurns(
      [
        async () => ({ hot: (await request(bhatti, host, "/")).ms }),
        async () => {
          await until("it is paused", async () => {
            const { reply } = await bhatti.api("GET", `/sandboxes/${name}`)
            return (reply as { thermal: string }).thermal === "warm"
          })
          const woken = (await request(bhatti, host, "/")).ms
          return { warm: woken, hotAfter: (await request(bhatti, host, "/")).ms }
        },
      ],
      rounds,
    )
    const bulk = await measureInTurns([async () => ({ bulk: (await request(bhatti, host, "/bulk")).ms })], {
      ...rounds,
      rounds: Math.min(rounds.rounds, bulkRoundsMax),
    })
    return [
      { what: "published port, reply of a running sandbox", unit: "ms", samples: samples["hot"] ?? [] },
      {
        what: "published port, reply of a paused sandbox",
        unit: "ms",
        samples: samples["warm"] ?? [],
        peer: { what: "the next reply", samples: samples["hotAfter"] ?? [] },
      },
      {
        what: `published port, download of ${bulkMegabytes} MB`,
        unit: "ms",
        samples: bulk["bulk"] ?? [],
        promise: { p50Max: bulkMsMax },
      },
    ]
  },
}

async function request(bhatti: Bhatti, host: string, path: string): Promise<{ ms: number; status: number }> {
  const startedAt = performance.now()
  const response = await fetch(`${bhatti.installation.url}${path}`, {
    headers: { host, connection: "close" },
    keepalive: false,
  })
  if (response.body) for await (const _ of response.body);
  return { ms: performance.now() - startedAt, status: response.status }
}
