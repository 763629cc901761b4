/**
 * Runs as root in network, mount and process namespaces of its own, where /etc and /run are a test's: the network of
 * sandboxes with its real name servers, and name servers of the host that write down all that they are asked. It is
 * told what to do line by line on standard input, and answers each line with one.
 */

import { readFileSync } from "node:fs"
import type { NetPolicy } from "@bhatti/contract/network"
import { profileOf } from "../../src/network/resolver.ts"
import { siteOf, TapNetwork } from "../../src/network/tap-network.ts"

export type Closed = { owner: string; policy: NetPolicy }
export type Order =
  /** A daemon starts, beside whatever an earlier one has left. */
  | { do: "start"; attached: (Closed & { slot: number })[]; upstreams?: string[] }
  /** It ends as if it were killed. */
  | { do: "end" }
  | ({ do: "attach"; slot: number } & Closed)
  | { do: "detach"; slot: number }
  /** Asks the name server of such a sandbox. */
  | ({ do: "ask"; names: string[]; kind?: number; over?: "udp" | "tcp" } & Closed)
  /** Waits until the name server of such a sandbox passes a question on, or does not. */
  | ({ do: "await"; name: string; from: string | null } & Closed)
  /** Tells which questions have come to the host's name servers since the last time, as SERVER NAME. */
  | { do: "asked" }
  | { do: "run"; command: string }

const [dataDir = "", ...hostServers] = process.argv.slice(2)
const deadlineMs = 20_000
const asked: string[] = []
const reports: string[] = []
let network: TapNetwork | undefined
let ending = new AbortController()

for (const hostname of hostServers) await listen(hostname)
console.log(JSON.stringify("ready"))
for await (const line of console) {
  let answer: unknown
  try {
    answer = { ok: (await carryOut(JSON.parse(line) as Order)) ?? null }
  } catch (error) {
    answer = { error: error instanceof Error ? `${error.message} ${error.cause ?? ""}` : String(error) }
  }
  console.log(JSON.stringify(answer))
}
process.exit(0)

async function carryOut(order: Order): Promise<unknown> {
  switch (order.do) {
    case "start": {
      const made = new TapNetwork({
        dataDir,
        subnet: "10.99.0.0/16",
        upstreams: order.upstreams ?? [],
        opened: [],
      })
      network = made
      await made.resync(order.attached.map(attachment))
      ending = new AbortController()
      void made.guard(ending.signal, (what) => void reports.push(what))
      return undefined
    }
    case "end":
      ending.abort()
      return undefined
    case "attach":
      return network?.attach(attachment(order))
    case "detach":
      return network?.detach(idOf(order.slot))
    case "ask": {
      const address = addressOf(order)
      const ask = order.over === "tcp" ? askTcp : askUdp
      return Promise.all(order.names.map((name) => ask(address, questionFor(name, order.kind ?? 1))))
    }
    case "await": {
      const address = addressOf(order)
      for (const endMs = Date.now() + deadlineMs; Date.now() < endMs; await Bun.sleep(50)) {
        asked.length = 0
        await askUdp(address, questionFor(order.name, 1))
        const [from] = asked.find((line) => line.endsWith(` ${order.name}`))?.split(" ") ?? []
        if ((from ?? null) === order.from) return undefined
      }
      throw new Error(`waited in vain for ${order.name} to be passed on to ${order.from ?? "nobody"}`)
    }
    case "asked":
      return { asked: asked.splice(0), reports: reports.splice(0) }
    case "run": {
      const { stdout, stderr, exitCode } = Bun.spawnSync(["sh", "-ec", order.command])
      if (exitCode !== 0) throw new Error(`${order.command}: ${stderr}`)
      return stdout.toString()
    }
  }
}

function idOf(slot: number): string {
  return `sb_${`${slot}`.padEnd(10, "a")}`
}

function attachment({ owner, policy, slot }: Closed & { slot: number }) {
  return { id: idOf(slot), slot, owner, hostname: `box${slot}`, policy }
}

function addressOf({ owner, policy }: Closed): string {
  const directory = `/run/${siteOf(dataDir).table}/${profileOf(owner, policy).key}`
  const config = readFileSync(`${directory}/dnsmasq.conf`, "utf8")
  return /^listen-address=(.+)$/m.exec(config)?.[1] ?? ""
}

/** An answer of the host's name servers: every name has one address. */
function answerTo(question: Uint8Array): Uint8Array {
  const record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 203, 0, 113, 9]
  const end = 12 + Buffer.from(question.subarray(12)).indexOf(0) + 5
  const isAddress = question[end - 3] === 1
  const answer = Buffer.from([...question.subarray(0, end), ...(isAddress ? record : [])])
  answer.set([0x81, 0x80, 0, 1, 0, isAddress ? 1 : 0, 0, 0, 0, 0], 2)
  return answer
}

async function listen(hostname: string): Promise<void> {
  const note = (question: Uint8Array) => asked.push(`${hostname} ${nameIn(question)}`)
  await Bun.udpSocket({
    hostname,
    port: 53,
    socket: {
      data(socket, bytes, port, peer) {
        note(bytes)
        socket.send(answerTo(bytes), port, peer)
      },
    },
  })
  Bun.listen({
    hostname,
    port: 53,
    socket: {
      data(socket, bytes) {
        const question = bytes.subarray(2)
        note(question)
        const answer = answerTo(question)
        socket.write(Buffer.concat([Buffer.from([0, answer.length]), answer]))
      },
    },
  })
}

function nameIn(question: Uint8Array): string {
  const labels: string[] = []
  for (let at = 12; question[at] !== 0; at += (question[at] ?? 0) + 1)
    labels.push(Buffer.from(question.subarray(at + 1, at + 1 + (question[at] ?? 0))).toString())
  return labels.join(".")
}

function questionFor(name: string, kind: number): Uint8Array {
  const labels = name.split(".").filter((label) => label !== "")
  const encoded = labels.flatMap((label) => [label.length, ...Buffer.from(label)])
  return new Uint8Array([1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...encoded, 0, 0, kind, 0, 1])
}

/** The address in the answer, or the answer's code. */
function answerIn(bytes: Uint8Array): string {
  const count = (bytes[6] ?? 0) * 256 + (bytes[7] ?? 0)
  const code = ["none", "malformed", "failed", "no such name", "unknown", "refused"][(bytes[3] ?? 0) & 15]
  return count === 0 ? (code ?? "other") : bytes.slice(-4).join(".")
}

async function askUdp(address: string, question: Uint8Array): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const socket = await Bun.udpSocket({ socket: { data: (_, bytes) => resolve(answerIn(bytes)) } })
  const timer = setTimeout(() => resolve("silence"), 3000)
  socket.send(question, 53, address)
  const answer = await promise
  clearTimeout(timer)
  socket.close()
  return answer
}

async function askTcp(hostname: string, question: Uint8Array): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const timer = setTimeout(() => resolve("silence"), 3000)
  const socket = await Bun.connect({
    hostname,
    port: 53,
    socket: { data: (_, bytes) => resolve(answerIn(bytes.subarray(2))), close: () => resolve("closed") },
  })
  socket.write(Buffer.concat([Buffer.from([0, question.length]), question]))
  const answer = await promise
  clearTimeout(timer)
  socket.end()
  return answer
}
