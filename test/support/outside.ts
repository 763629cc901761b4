/**
 * The world outside, in a network namespace of the tests on this host: hosts of the internet with a name server, a
 * cloud's metadata service, a host of the local network and one of a private network that the operator has opened.
 * No packet ever leaves this host: every address used is routed into the namespace, and the routes go with it.
 */

import { join } from "node:path"
import { until } from "./installation.ts"

export type Outside = AsyncDisposable & {
  /** Two hosts of the internet; the first one is also the name server. */
  internet: string
  elsewhere: string
  metadata: string
  lan: string
  opened: string
  /** The host's own address in that network. */
  host: string
  /** Datagrams to the UDP servers, with the address they came from. */
  received: string[]
  /** Names that the name server has been asked for, by anybody. */
  asked: string[]
  /** Runs a program out there; its exit code and output. */
  run(command: string[]): Promise<{ exitCode: number; stdout: string }>
}

/** Begins the name of each namespace. */
export const spacePrefix = "bhtest-"

/** `names` are those that the name server out there knows; the address is a field of the result. */
export async function outside(
  names: Record<string, "internet" | "elsewhere" | "metadata" | "lan" | "opened">,
): Promise<Outside> {
  await using undo = new AsyncDisposableStack()
  const tag = crypto.randomUUID().slice(0, 6)
  const space = `${spacePrefix}${tag}`
  ip("netns", "add", space)
  undo.defer(() => ip("netns", "delete", space))

  const card = `bho${tag}`
  ip("link", "add", card, "type", "veth", "peer", "name", "eth0", "netns", space)
  undo.defer(() => ip("link", "delete", card))
  ip("link", "set", card, "up")

  // No host of the internet has an address of 192.88.99.0/24 any more, and no program takes it for a private one.
  const slice = takeSlice(card)
  const at = (number: number) => `192.88.99.${slice * 8 + number}`
  const addresses = {
    host: at(1),
    internet: at(2),
    elsewhere: at(3),
    metadata: "169.254.169.254",
    lan: `192.168.${slice}.2`,
    opened: `172.31.${slice}.2`,
  }
  const servers = [
    addresses.internet,
    addresses.elsewhere,
    addresses.metadata,
    addresses.lan,
    addresses.opened,
  ]
  const inside = (...command: string[]) => ip("netns", "exec", space, ...command)
  inside("ip", "link", "set", "lo", "up")
  inside("ip", "address", "add", `${addresses.internet}/29`, "dev", "eth0")
  for (const address of servers.slice(1)) inside("ip", "address", "add", `${address}/32`, "dev", "eth0")
  inside("ip", "link", "set", "eth0", "up")
  inside("ip", "route", "add", "default", "via", addresses.host)
  // Another run may have its own metadata service; the host then reaches that one.
  for (const address of servers.slice(2))
    ip("route", "append", `${address}/32`, "via", addresses.internet, "dev", card)

  const started = Bun.spawn(
    ["ip", "netns", "exec", space, process.execPath, join(import.meta.dir, "outside-servers.ts"), ...servers],
    { stdout: "pipe", stderr: "inherit" },
  )
  undo.defer(async () => {
    started.kill("SIGKILL")
    await started.exited
  })
  const received: string[] = []
  void readLines(started.stdout, received)
  await until("the servers outside", () => received.includes("ready"))

  const records = Object.entries(names).map(([name, host]) => `--host-record=${name},${addresses[host]}`)
  const dns = Bun.spawn(
    [
      ...[
        "ip",
        "netns",
        "exec",
        space,
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-hosts",
      ],
      ...[
        "--no-resolv",
        "--pid-file=",
        `--listen-address=${addresses.internet}`,
        "--bind-interfaces",
        ...["--log-queries", "--log-facility=-"],
        ...records,
      ],
    ],
    { stderr: "pipe" },
  )
  const words: string[] = []
  void readLines(dns.stderr, words)
  undo.defer(async () => {
    dns.kill("SIGKILL")
    await dns.exited
  })
  const made = undo.move()
  return {
    ...addresses,
    received,
    get asked() {
      return words.flatMap((line) => /query\[[A-Z]+\] (\S+) from/.exec(line)?.[1] ?? [])
    },
    async run(command) {
      const child = Bun.spawn(["ip", "netns", "exec", space, ...command], {
        stdout: "pipe",
        stderr: "ignore",
      })
      const [stdout, exitCode] = await Promise.all([new Response(child.stdout).text(), child.exited])
      return { stdout, exitCode }
    },
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  }
}

/** Takes a free one of the 32 networks of eight addresses. */
function takeSlice(card: string): number {
  for (let slice = 0; slice < 32; slice++) {
    const network = `192.88.99.${slice * 8}/29`
    if (Bun.spawnSync(["ip", "-4", "route", "show", network]).stdout.length > 0) continue
    ip("address", "add", `192.88.99.${slice * 8 + 1}/29`, "dev", card)
    return slice
  }
  throw new Error("all networks for tests are in use")
}

function ip(...args: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["ip", ...args])
  if (exitCode !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`)
}

async function readLines(stream: ReadableStream<Uint8Array>, lines: string[]): Promise<void> {
  let rest = ""
  for await (const bytes of stream) {
    const parts = (rest + Buffer.from(bytes).toString()).split("\n")
    rest = parts.pop() ?? ""
    lines.push(...parts)
  }
}
