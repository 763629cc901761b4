/**
 * Reachability between real machines, with real packets: two users with sandboxes of their own, and a world
 * outside that is a network namespace of this host.
 */

import { Database } from "bun:sqlite"
import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { siteOf } from "../../src/network/tap-network.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { type Outside, outside } from "../support/outside.ts"
import { type OwnEtc, ownEtc } from "../support/own-etc.ts"

/** How long an answer is waited for that must come, that must not, and that may. A busy host takes its time. */
const yesWaitSec = 60
const noWaitSec = 4
const unsureWaitSec = 10

const gatewayMac = "02:00:00:00:00:fe"
const probe = join(import.meta.dir, "../support/probe.py")

type Sandbox = { id: string; name: string; ip: string }
type Question = { id: string; how: string } & Record<string, string | number>

let world: Outside
let etc: OwnEtc
let own: Installation
let bobsKey: string
let gateway: string
/** The test process's port on every address of this host. */
let hostPort: number
let stopHost: () => void
const sandboxes: Record<string, Sandbox> = {}

beforeAll(async () => {
  world = await outside({
    "good.example.com": "internet",
    "deep.good.example.com": "internet",
    "example.org": "elsewhere",
    "www.example.org": "elsewhere",
    "inside.example.com": "lan",
    "metadata.example.com": "metadata",
  })
  etc = ownEtc()
  etc.write("resolv.conf", `nameserver ${world.internet}\n`)
  own = await install({
    pool: 1,
    config: `allow_internal: [${world.opened}]\n`,
    launcher: etc.launcher,
  })
  bobsKey = await own.addUser("bob")
  const server = Bun.listen({
    hostname: "0.0.0.0",
    port: 0,
    socket: { open: (socket) => void socket.end("host"), data() {} },
  })
  hostPort = server.port
  stopHost = () => server.stop(true)
}, 600_000)

afterAll(async () => {
  stopHost()
  await own[Symbol.asyncDispose]()
  etc[Symbol.dispose]()
  await world[Symbol.asyncDispose]()
}, 600_000)

async function create(name: string, args: string[] = [], key?: string): Promise<Sandbox> {
  const made = await own.bhatti(
    [
      ...["create", "--name", name, "--json", "--file", `${probe}:/opt/probe.py`],
      ...["--init", "exec python3 /opt/probe.py serve", ...args],
    ],
    key === undefined ? {} : { key },
  )
  expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  const sandbox = JSON.parse(made.stdout) as Sandbox
  sandboxes[name] = sandbox
  // No sandbox may be paused while a neighbour talks to it.
  await own.bhatti(["edit", name, "--keep-hot", "on"], key === undefined ? {} : { key })
  await until(
    `${name} serves`,
    async () => {
      const command = ["exec", name, "--", "sh", "-c", "ss -Hlnt sport = 7777"]
      return (await own.bhatti(command, key === undefined ? {} : { key })).stdout.includes("7777")
    },
    { deadlineMs: 120_000 },
  )
  return sandbox
}

async function ask(
  name: string,
  questions: Question[],
  key?: string,
): Promise<Record<string, string | null>> {
  const { stdout, stderr } = await own.bhatti(
    ["exec", "-i", name, "--", "sudo", "python3", "/opt/probe.py", "ask"],
    {
      stdin: JSON.stringify(questions.map((one) => ({ wait: unsureWaitSec, ...one }))),
      ...(key !== undefined && { key }),
    },
  )
  if (stdout === "") throw new Error(stderr)
  return JSON.parse(stdout)
}

async function exec(name: string, script: string) {
  return own.bhatti(["exec", name, "--", "sh", "-c", script])
}

function addressOf(name: string): string {
  return sandboxes[name]?.ip ?? ""
}

/** The whole table for one sandbox: every question with the answer it must get. */
function table(name: string, siblings: string[], strangers: string[]): [Question, string | null][] {
  const source = addressOf(name)
  const all = (id: string, address: string, answers: [string | null, string | null, string | null]) =>
    (["tcp", "udp", "icmp"] as const).map((how, index): [Question, string | null] => [
      { id: `${how} ${id}`, how, address },
      answers[index] ?? null,
    ])
  const yes: [string, string, string] = ["tcp", "udp", "icmp"]
  const no: [null, null, null] = [null, null, null]
  const hostService = (id: string, address: string): [Question, null] => [
    { id: `host service at ${id}`, how: "tcp", address, port: hostPort },
    null,
  ]
  return [
    ...siblings.flatMap((one) => all(`sibling ${one}`, addressOf(one), yes)),
    ...strangers.flatMap((one) => all(`stranger ${one}`, addressOf(one), no)),
    ...all("internet", world.internet, yes),
    ...all("opened private network", world.opened, yes),
    ...all("metadata service", world.metadata, no),
    ...all("local network", world.lan, no),
    ...all("address that nobody has", gateway.replace(/\.1$/, ".250"), no),
    [{ id: "icmp gateway", how: "icmp", address: gateway }, "icmp"],
    [{ id: "icmp host", how: "icmp", address: world.host }, null],
    hostService("gateway", gateway),
    hostService("its uplink", world.host),
    hostService("another of its addresses", "192.0.2.2"),
    [
      {
        id: "host loopback",
        how: "syn",
        address: "127.0.0.1",
        source,
        port: hostPort,
        gateway_mac: gatewayMac,
      },
      null,
    ],
    [{ id: "API", how: "tcp", address: gateway, port: Number(new URL(own.url).port) }, null],
    [
      { id: "another owner's name server", how: "tcp", address: gateway.replace(/\.1$/, ".3"), port: 53 },
      null,
    ],
    [{ id: "arp gateway", how: "arp", address: gateway, source }, gatewayMac],
    [{ id: "arp host", how: "arp", address: world.host, source }, null],
    ...[...siblings, ...strangers].map((one): [Question, null] => [
      { id: `arp ${one}`, how: "arp", address: addressOf(one), source },
      null,
    ]),
    [{ id: "arp for another", how: "arp", address: gateway, source: addressOf(strangers[0] ?? "") }, null],
    [{ id: "arp of another card", how: "arp", address: gateway, source, mac: "02:99:99:99:99:99" }, null],
    [{ id: "ip6 everybody", how: "ip6", address: "ff02::1", gateway_mac: gatewayMac }, null],
    [{ id: "ip6 all routers", how: "ip6", address: "ff02::2", gateway_mac: gatewayMac }, null],
    [{ id: "ip6 metadata", how: "ip6", address: "fd00:ec2::254", gateway_mac: gatewayMac }, null],
    [{ id: "dhcp", how: "dhcp" }, null],
    ...["224.0.0.1", "224.0.0.251", "255.255.255.255", gateway.replace(/\.1$/, ".255")].map(
      (address): [Question, null] => [{ id: `shout to ${address}`, how: "shout", address }, null],
    ),
    ...siblings.map((one): [Question, string] => [
      { id: `name ${one}`, how: "name", name: one },
      addressOf(one),
    ]),
    ...strangers.map((one): [Question, null] => [{ id: `name ${one}`, how: "name", name: one }, null]),
    [{ id: "name outside", how: "name", name: "good.example.com" }, world.internet],
  ]
}

async function expectTable(name: string, siblings: string[], strangers: string[], key?: string) {
  const cells = table(name, siblings, strangers)
  const answers = await ask(
    name,
    cells.map(([question, answer]) => ({ wait: answer === null ? noWaitSec : yesWaitSec, ...question })),
    key,
  )
  const wanted = Object.fromEntries(cells.map(([{ id }, answer]) => [id, answer]))
  expect(answers).toEqual(wanted)
}

test("the addresses are there, and the fake world is one that this host reaches", async () => {
  await create("ann1")
  await create("ann2")
  await create("bob1", [], bobsKey)
  await create("bob2", [], bobsKey)
  gateway = addressOf("ann1").replace(/\.\d+$/, ".1")
  for (const address of [world.internet, world.metadata, world.lan, world.opened]) {
    const said = await fetch(`http://${address}:7777`).then(
      () => "",
      (error: unknown) => String((error as Error & { code?: string }).code),
    )
    // It speaks no HTTP, but it speaks.
    expect(said).not.toMatch(/refused|timeout/i)
  }
}, 600_000)

describe("who may reach whom", () => {
  test("after create, also from the pool", async () => {
    await expectTable("ann1", ["ann2"], ["bob1", "bob2"])
    await expectTable("bob2", ["bob1"], ["ann1", "ann2"], bobsKey)
  }, 600_000)

  test("after a pause", async () => {
    await own.bhatti(["edit", "ann1", "--keep-hot", "off"])
    await until(
      "ann1 is paused",
      async () => JSON.parse((await own.bhatti(["inspect", "ann1", "--json"])).stdout).thermal === "warm",
      { deadlineMs: 120_000 },
    )
    await expectTable("ann1", ["ann2"], ["bob1", "bob2"])
    await own.bhatti(["edit", "ann1", "--keep-hot", "on"])
  }, 600_000)

  test("after a stop and a start from disk", async () => {
    expect((await own.bhatti(["stop", "ann1"])).exitCode).toBe(0)
    const answers = await ask("ann2", [
      { id: "stopped", how: "tcp", address: addressOf("ann1") },
      { id: "its name", how: "name", name: "ann1" },
    ])
    expect(answers).toEqual({ stopped: null, "its name": null })
    await expectTable("ann1", ["ann2"], ["bob1", "bob2"])
    await expectTable("ann2", ["ann1"], ["bob1", "bob2"])
  }, 600_000)

  test("of a copy, whose memory begins with its source's address", async () => {
    const made = await own.bhatti(["create", "--from", "ann1", "--name", "ann3", "--json"])
    expect(made.exitCode).toBe(0)
    sandboxes["ann3"] = JSON.parse(made.stdout)
    await own.bhatti(["edit", "ann3", "--keep-hot", "on"])
    await expectTable("ann3", ["ann1", "ann2"], ["bob1", "bob2"])
    await expectTable("ann1", ["ann2", "ann3"], ["bob1"])
  }, 600_000)

  test("while the daemon is dead, and after its successor has started", async () => {
    await own.stopDaemon("SIGKILL")
    const dead = await Promise.all([
      world.run(["python3", "-c", connectTo(addressOf("ann1"))]),
      run(["python3", "-c", connectTo(addressOf("ann1"))]),
    ])
    expect(dead.map(({ exitCode }) => exitCode)).toEqual([1, 1])
    await own.startDaemon()
    await expectTable("ann1", ["ann2", "ann3"], ["bob1", "bob2"])
    await expectTable("bob1", ["bob2"], ["ann1", "ann2", "ann3"], bobsKey)
  }, 600_000)

  test("nobody outside reaches a sandbox, nor does this host", async () => {
    for (const target of ["ann1", "bob1"]) {
      expect((await world.run(["python3", "-c", connectTo(addressOf(target))])).exitCode).toBe(1)
      expect((await run(["python3", "-c", connectTo(addressOf(target))])).exitCode).toBe(1)
    }
  }, 600_000)
})

describe("a sandbox cannot be another", () => {
  test("with another's address", async () => {
    for (const victim of ["ann2", "bob1"]) {
      const text = `forged-${victim}`
      await exec("ann1", `sudo ip address add ${addressOf(victim)}/32 dev eth0`)
      const answers = await ask("ann1", [
        {
          ...{ id: "forged", how: "udp", address: world.internet, source: addressOf(victim), text },
          wait: noWaitSec,
        },
        { id: "honest", how: "udp", address: world.internet, text: `honest-${victim}` },
      ])
      expect(answers).toEqual({ forged: null, honest: "udp" })
      await exec("ann1", `sudo ip address del ${addressOf(victim)}/32 dev eth0`)
      expect(world.received.filter((line) => line.includes(text))).toEqual([])
      expect(world.received.filter((line) => line.includes(`honest-${victim}`))).not.toEqual([])
    }
  }, 600_000)

  test("with another card", async () => {
    const mac = (await exec("ann1", "cat /sys/class/net/eth0/address")).stdout.trim()
    const change = (to: string) =>
      exec(
        "ann1",
        `sudo sh -c 'ip link set eth0 address ${to} && ip route replace ${gateway} dev eth0 && ip route replace default via ${gateway}'`,
      )
    await change("02:de:ad:be:ef:01")
    const probe: Question[] = [
      { id: "it", how: "udp", address: world.internet, text: "other-card", wait: noWaitSec },
    ]
    expect(await ask("ann1", probe)).toEqual({ it: null })
    expect(world.received.filter((line) => line.includes("other-card"))).toEqual([])
    await change(mac)
    await until("its own card works", async () => (await ask("ann1", probe))["it"] === "udp")
  }, 600_000)
})

test("answers to a former holder of an address do not reach the next one", async () => {
  const former = await create("former")
  const hear: Question = { id: "heard", how: "hear", from_port: 5555 }
  const stay: Question = { id: "asked", how: "udp", address: world.internet, from_port: 5555, text: "stay" }
  expect(await ask("former", [stay])).toEqual({ asked: "udp" })
  expect(await ask("former", [hear])).toEqual({ heard: "again" })
  expect((await own.bhatti(["destroy", "-y", "former"])).exitCode).toBe(0)
  delete sandboxes["former"]
  // The address is the next one's that is made; what the pool has ready goes first.
  const names: string[] = []
  while (addressOf(names.at(-1) ?? "") !== former.ip) {
    expect(names.length).toBeLessThan(4)
    names.push(`heir${names.length}`)
    await create(names.at(-1) ?? "", [], bobsKey)
  }
  const heir = names.at(-1) ?? ""
  expect(await ask(heir, [{ ...hear, wait: noWaitSec }], bobsKey)).toEqual({ heard: null })
  const asks: Question = { id: "asks", how: "udp", address: world.internet }
  expect(await ask(heir, [asks], bobsKey)).toEqual({ asks: "udp" })
  expect((await own.bhatti(["destroy", "-y", ...names], { key: bobsKey })).exitCode).toBe(0)
  for (const name of names) delete sandboxes[name]
}, 600_000)

describe("egress", () => {
  const reach = async (name: string) => {
    const tcp = (id: string, address: string): Question => ({ id, how: "tcp", address })
    const answers = await ask(name, [
      tcp("internet", world.internet),
      tcp("elsewhere", world.elsewhere),
      tcp("lan", world.lan),
      tcp("opened", world.opened),
      tcp("sibling", addressOf("ann2")),
    ])
    return Object.keys(answers)
      .filter((id) => answers[id] !== null)
      .sort()
  }
  const resolve = async (name: string, names: string[]) => {
    const answers = await ask(
      name,
      names.map((one) => ({ id: one, how: "name", name: one })),
    )
    return Object.keys(answers)
      .filter((id) => answers[id] !== null)
      .sort()
  }
  const edit = async (...args: string[]) => {
    const { exitCode, stderr } = await own.bhatti(["edit", "caged", ...args])
    expect([exitCode, stderr]).toEqual([0, ""])
  }
  const names = ["ann2", "good.example.com", "deep.good.example.com", "example.org", "www.example.org"]

  test("deny leaves the siblings, and the names of siblings", async () => {
    await create("caged", ["--egress", "deny"])
    expect(await reach("caged")).toEqual(["sibling"])
    expect(await resolve("caged", names)).toEqual(["ann2"])
    expect((await own.bhatti(["inspect", "caged"])).stdout).toMatch(/egress +deny\n/)
  }, 600_000)

  test("deny lets no name out, through an edit, a stop, a copy, a new daemon and another name server of the host", async () => {
    const expectClosed = async (stage: string, name: string) => {
      const secret = `secret-${stage}.example.org`
      const lookUp = `getent hosts ${secret} & RES_OPTIONS=use-vc getent hosts ${secret.toUpperCase()} & wait`
      expect((await exec(name, lookUp)).stdout).toBe("")
      // Its own is the only name server that it can speak to, at one address of these.
      const servers = [2, 3, 4, 5, 6].map((number) => gateway.replace(/\.1$/, `.${number}`))
      const speak = `for server in ${[world.internet, ...servers].join(" ")}; do
        { timeout 10 bash -c "</dev/tcp/$server/53" 2>/dev/null && echo $server; } & done; wait`
      const reached = (await exec(name, speak)).stdout.trim().split("\n")
      expect([stage, reached.length, servers]).toEqual([stage, 1, expect.arrayContaining(reached)])
      await resolve("ann2", [`known-${stage}.example.org`])
      expect(world.asked).toContain(`known-${stage}.example.org`)
      expect(world.asked.filter((asked) => asked.toLowerCase().includes("secret"))).toEqual([])
    }
    await expectClosed("create", "caged")
    for (const args of [
      ["--allow-host", "good.example.com"],
      ["--allow-cidr", world.elsewhere],
    ]) {
      await edit(...args)
      await expectClosed(`edit${args[0]}`, "caged")
    }
    await edit("--egress", "public")
    await edit("--egress", "deny")
    await expectClosed("back", "caged")
    expect((await own.bhatti(["stop", "caged"])).exitCode).toBe(0)
    await expectClosed("wake", "caged")
    expect((await own.bhatti(["create", "--from", "caged", "--name", "copied"])).exitCode).toBe(0)
    await expectClosed("copy", "copied")
    await own.stopDaemon("SIGKILL")
    await own.startDaemon()
    await expectClosed("restart", "caged")
    etc.write("resolv.conf", `nameserver ${world.elsewhere}\nnameserver ${world.internet}\n`)
    await until("a name is asked again", async () => {
      await resolve("ann2", ["changed.example.org"])
      return world.asked.includes("changed.example.org")
    })
    await expectClosed("change", "caged")
    etc.write("resolv.conf", `nameserver ${world.internet}\n`)
    expect((await own.bhatti(["destroy", "-y", "copied"])).exitCode).toBe(0)
  }, 600_000)

  test("an allowed name opens its address as soon as it is resolved, and no other name is answered", async () => {
    await edit("--allow-host", "good.example.com")
    expect(await reach("caged")).toEqual(["sibling"])
    expect(await resolve("caged", names)).toEqual(["ann2", "good.example.com"])
    expect(await reach("caged")).toEqual(["internet", "sibling"])
  }, 600_000)

  test("a pattern is all names below, and not the name itself", async () => {
    await edit("--allow-host", "*.example.org")
    expect(await reach("caged")).toEqual(["sibling"])
    expect(await resolve("caged", names)).toEqual(["ann2", "www.example.org"])
    expect(await reach("caged")).toEqual(["elsewhere", "sibling"])
  }, 600_000)

  test("an allowed name that is internal, or a network with internal ones in it, opens nothing of them", async () => {
    const inside = ["inside.example.com", "metadata.example.com"]
    // Without 192.88.99.0/24, where the internet of this test is.
    const wide = "168.0.0.0/7,192.160.0.0/11"
    await edit(...inside.flatMap((name) => ["--allow-host", name]), "--allow-cidr", wide)
    expect(await resolve("caged", inside)).toEqual(inside)
    expect(await reach("caged")).toEqual(["sibling"])
    const metadata = await ask("caged", [{ id: "it", how: "tcp", address: world.metadata }])
    expect(metadata).toEqual({ it: null })
  }, 600_000)

  test("an allowed network is reached by its addresses; an opened one needs it too", async () => {
    await edit("--allow-cidr", world.elsewhere)
    expect(await reach("caged")).toEqual(["elsewhere", "sibling"])
    await edit("--allow-cidr", `${world.elsewhere},${world.opened}/32`)
    expect(await reach("caged")).toEqual(["elsewhere", "opened", "sibling"])
  }, 600_000)

  test("it outlives a stop and a start, and a copy has it too", async () => {
    await own.bhatti(["stop", "caged"])
    expect(await reach("caged")).toEqual(["elsewhere", "opened", "sibling"])
    const made = await own.bhatti(["create", "--from", "caged", "--name", "caged2"])
    expect(made.exitCode).toBe(0)
    expect(await reach("caged2")).toEqual(["elsewhere", "opened", "sibling"])
    await own.bhatti(["destroy", "caged2"])
  }, 600_000)

  test("public again is public; then deny cuts the connection that is open", async () => {
    await edit("--egress", "public")
    expect(await reach("caged")).toEqual(["elsewhere", "internet", "opened", "sibling"])
    const talk = `
import socket, sys
s = socket.create_connection(("${world.internet}", 7777), 5)
s.settimeout(60)
for line in sys.stdin:
    s.sendall(b"x")
    print(s.recv(8).decode(), flush=True)
`
    const talking = own.start(["exec", "-i", "caged", "--", "python3", "-c", talk])
    const output = new Response(talking.stdout).text()
    const words = new Response(talking.stderr).text()
    talking.stdin.write("one\n")
    await talking.stdin.flush()
    await until("the connection is open", async () =>
      (await exec("caged", "ss -Hnt state established dport = 7777")).stdout.includes(world.internet),
    )
    await edit("--egress", "deny")
    talking.stdin.write("two\nthree\nfour\n")
    talking.stdin.end()
    expect(await talking.exited).toBe(1)
    expect(await words).toMatch(/ConnectionResetError|BrokenPipeError/)
    expect((await output).startsWith("tcp")).toBe(true)
    expect(await reach("caged")).toEqual(["sibling"])
  }, 600_000)

  test("deny cuts a conversation too in which only the other side still speaks", async () => {
    await edit("--egress", "public")
    const hear = async () =>
      (await ask("caged", [{ id: "heard", how: "hear", from_port: 5556, wait: noWaitSec }]))["heard"]
    const stay: Question = { id: "asked", how: "udp", address: world.internet, from_port: 5556, text: "stay" }
    expect(await ask("caged", [stay])).toEqual({ asked: "udp" })
    expect(await hear()).toBe("again")
    // An edit that still allows it does not disturb it.
    await edit("--allow-cidr", world.internet)
    expect(await hear()).toBe("again")
    await edit("--allow-cidr", world.elsewhere)
    expect(await hear()).toBeNull()
    await edit("--egress", "public")
    expect(await hear()).toBe("again")
    await edit("--egress", "deny")
    expect(await hear()).toBeNull()
  }, 600_000)

  test("what means nothing is refused, and nothing changes", async () => {
    for (const args of [
      ["--egress", "open"],
      ["--egress", "public", "--allow-host", "example.com"],
      ["--allow-host", "10.0.0.1"],
      ["--allow-host", "a..b"],
      ["--allow-host", "*"],
      ["--allow-cidr", "fd00::/8"],
      ["--allow-cidr", "300.0.0.0/8"],
      ["--allow-cidr", "0.0.0.0/0"],
    ])
      expect((await own.bhatti(["edit", "caged", ...args])).exitCode).not.toBe(0)
    for (const internal of ["192.168.0.0/16", world.metadata, gateway]) {
      const refused = await own.bhatti(["edit", "caged", "--allow-cidr", internal])
      expect([refused.exitCode, refused.stderr]).toEqual([
        2,
        expect.stringContaining("internal, and not open"),
      ])
      expect(refused.stderr).toContain("allow_internal")
    }
    expect(await reach("caged")).toEqual(["sibling"])
  }, 600_000)
})

test("from a sandbox that never stops sending no packet gets out, through a stop, a wake, a copy and the daemon's death", async () => {
  await create("leaky")
  const send = `
import socket, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(1 << 30):
    try: udp.sendto(b"leak", ("${world.internet}", 7777))
    except OSError: pass
    open("/dev/shm/sent", "w").write(str(number))
    time.sleep(0.01)
`
  const start = "cat >/tmp/send.py; setsid python3 /tmp/send.py </dev/null >/dev/null 2>&1 &"
  const begun = await own.bhatti(["exec", "-i", "leaky", "--", "sh", "-c", start], { stdin: send })
  expect(begun.exitCode).toBe(0)
  const leaks = (lines: string[]) => lines.filter((line) => line.endsWith(" leak")).length
  await until("it gets through while it may", () => leaks(world.received) > 0)

  expect((await own.bhatti(["edit", "leaky", "--egress", "deny"])).exitCode).toBe(0)
  await ask("ann2", [{ id: "it", how: "udp", address: world.internet, text: "from here on" }])
  await until("that is heard", () => world.received.some((line) => line.endsWith("from here on")))
  const since = world.received.findIndex((line) => line.endsWith("from here on"))

  const goesOnSending = async (name: string) => {
    const sent = async () => Number((await exec(name, "cat /dev/shm/sent")).stdout)
    const before = await sent()
    await until(`${name} sends`, async () => (await sent()) > before + 20, { deadlineMs: 120_000 })
  }
  await goesOnSending("leaky")
  expect((await own.bhatti(["stop", "leaky"])).exitCode).toBe(0)
  await goesOnSending("leaky")
  const made = await own.bhatti(["create", "--from", "leaky", "--name", "leaky2", "--json"])
  expect(made.exitCode).toBe(0)
  sandboxes["leaky2"] = JSON.parse(made.stdout)
  await goesOnSending("leaky2")
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  for (const name of ["leaky", "leaky2"]) await goesOnSending(name)
  expect(leaks(world.received.slice(since))).toBe(0)

  expect((await own.bhatti(["edit", "leaky2", "--egress", "public"])).exitCode).toBe(0)
  await until("the copy gets through when it may", () => leaks(world.received.slice(since)) > 0)
  // The servers outside get no other requests from here on.
  for (const name of ["leaky", "leaky2"]) {
    expect((await own.bhatti(["destroy", name])).exitCode).toBe(0)
    delete sandboxes[name]
  }
}, 600_000)

test("a sandbox whose rules cannot be applied does not start, and nothing of it stays", async () => {
  const { table, tapPrefix } = siteOf(own.dataDir)
  const taps = () => readdirSync("/sys/class/net").filter((name) => name.startsWith(tapPrefix))
  // Counts sandboxes and the pool, which is filled meanwhile.
  const owned = () => {
    using db = new Database(join(own.dataDir, "bhatti.db"), { readonly: true })
    const rows = db.query<{ id: string }, []>("select id from sandboxes where name <> 'never'").all()
    return rows.map(({ id }) => `${tapPrefix}${id.slice("sb_".length, "sb_".length + 8)}`)
  }
  // The kernel lets nobody change a table but its owner, for as long as that lives.
  const owner = Bun.spawn(["nft", "-i"], { stdin: "pipe", stdout: "ignore", stderr: "inherit" })
  owner.stdin.write(`delete table inet ${table}; add table inet ${table} { flags owner; }\n`)
  await owner.stdin.flush()
  try {
    await until("the table is another's", async () =>
      (await run(["nft", "list", "table", "inet", table])).stdout.includes("flags owner"),
    )
    const refused = await own.bhatti(["create", "--name", "never"])
    expect(refused.exitCode).toBe(1)
    expect(refused.stderr).toContain("cannot apply the network rules")
    expect((await own.bhatti(["inspect", "never"])).exitCode).toBe(1)
    expect((await own.bhatti(["edit", "ann2", "--egress", "deny"])).exitCode).toBe(1)
    expect((await own.bhatti(["inspect", "ann2"])).stdout).toMatch(/egress +public\n/)
  } finally {
    owner.stdin.end()
    await owner.exited
  }
  await until("the rules are back", async () =>
    (await run(["nft", "list", "table", "inet", table])).stdout.includes(addressOf("ann2")),
  )
  const found = taps()
  const expected = owned()
  expect(found.filter((name) => !expected.includes(name))).toEqual([])
  await create("later")
  await expectTable("later", ["ann2"], ["bob1"])
}, 600_000)

test("rules that somebody removes are put back at once", async () => {
  const { table } = siteOf(own.dataDir)
  expect((await run(["nft", "delete", "table", "inet", table])).exitCode).toBe(0)
  await until("the rules are back", async () =>
    (await run(["nft", "list", "table", "inet", table])).stdout.includes(addressOf("ann1")),
  )
  await expectTable("ann1", ["ann2"], ["bob1", "bob2"])
  expect(own.daemonLog()).toContain("the network rules of sandboxes had been removed")
}, 600_000)

test("a name server that ends is started again", async () => {
  const { table } = siteOf(own.dataDir)
  expect((await run(["pkill", "--full", "--", `--conf-file=/run/${table}/`])).exitCode).toBe(0)
  await until(
    "names are answered",
    async () => (await exec("ann1", "getent hosts ann2")).stdout.includes(addressOf("ann2")),
    { deadlineMs: 120_000 },
  )
}, 600_000)

test("when the last sandbox is gone and the daemon stops, nothing of the network stays", async () => {
  const subnet = gateway.replace(/\.1$/, "")
  await own.bhatti(["destroy", ...Object.keys(sandboxes).filter((name) => !name.startsWith("bob"))])
  await own.bhatti(["destroy", "bob1", "bob2"], { key: bobsKey })
  await own.stopDaemon("SIGTERM")
  const ruleset = (await run(["nft", "list", "ruleset"])).stdout
  expect(ruleset).not.toContain(subnet)
  expect((await run(["ip", "route", "show", "table", "all"])).stdout).not.toContain(subnet)
  expect((await run(["ip", "neighbour", "show", "nud", "all"])).stdout).not.toContain(subnet)
  const processes = (
    await run(["sh", "-c", "grep -la conf-file=/run/bhatti_ /proc/[0-9]*/cmdline | xargs cat"])
  ).stdout
  expect(processes).not.toContain(subnet)
  await own.startDaemon()
}, 600_000)

async function run(command: string[]): Promise<{ exitCode: number; stdout: string }> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "ignore" })
  const [stdout, exitCode] = await Promise.all([new Response(child.stdout).text(), child.exited])
  return { stdout, exitCode }
}

function connectTo(address: string): string {
  return `import socket; socket.create_connection(("${address}", 7777), 2)`
}
