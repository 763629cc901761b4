/**
 * The image `docker`: an engine that runs already in each sandbox, with containers that go on through all that happens
 * to a sandbox. Building the image takes minutes, so the first run needs BHATTI_TEST_LONG=1; later runs use the kept
 * one, and without that variable only the first test.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { docker } from "../../images/docker.ts"
import { HostImage, templatesIn } from "../support/host-images.ts"
import { type Installation, install, until } from "../support/installation.ts"

const isLong = process.env["BHATTI_TEST_LONG"] === "1"
const image = new HostImage(docker)
const isAtHand = await image.isAtHand()
if (!isAtHand) console.error("BHATTI_TEST_LONG=1 also builds the image docker, and keeps it for later runs")

const deadlineMs = 300_000

/** The smallest image: a program without files, and what it serves. */
const app = `
set -eu
mkdir -p app && cd app
cp /run/bhatti/kit/bin/busybox .
cat > Dockerfile <<'END'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /www && echo built > /www/index.html
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
END
docker build --quiet --tag app .`

/** The client counts on, with the answer of the server that it finds by its name. */
const composition = `
set -eu
cd app
cat > docker-compose.yml <<'END'
services:
  web:
    image: app
    ports: ["8081:80"]
  client:
    image: app
    depends_on: [web]
    command: sh -c 'n=0; while :; do n=$$((n+1)); echo "$$n $$(hostname) $$(wget -q -O - http://web/)" > /www/told.part; mv /www/told.part /www/told; sleep 1; done'
END
docker compose up --detach`

describe.skipIf(!isAtHand)("Docker Engine in a sandbox", () => {
  let own: Installation
  beforeAll(async () => {
    own = await install()
    await image.install(own)
  }, 1_800_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 120_000)

  async function create(name: string, ...options: string[]): Promise<number> {
    const made = await own.bhatti(["create", "--name", name, ...options], { deadlineMs })
    if (made.exitCode !== 0) throw new Error(made.stderr)
    return made.ms
  }
  async function sh(name: string, script: string, key = own.key): Promise<string> {
    const ran = await own.bhatti(["exec", name, "--", "sh", "-c", script], { deadlineMs, key })
    if (ran.exitCode !== 0) throw new Error(`${script}: ${ran.stdout}${ran.stderr}`)
    return ran.stdout.trim()
  }
  async function publish(name: string, port: number): Promise<string> {
    const args = ["publish", name, "-p", String(port), "-a", `${name}-${port}`]
    const { exitCode, stderr } = await own.bhatti(args)
    if (exitCode !== 0) throw new Error(stderr)
    return `${name}-${port}.localhost`
  }
  const ask = async (host: string) => (await fetch(own.url, { headers: { host } })).text()
  /** A number that grows while the client runs, who it is, and what the server answered last. */
  async function told(name: string): Promise<{ count: number; client: string; answer: string }> {
    const [count, client = "", answer = ""] = (
      await sh(name, "docker exec app_client_1 cat /www/told")
    ).split(" ")
    return { count: Number(count), client, answer }
  }

  /** The memory that the newest machine has for itself alone. */
  function privateMib(): number {
    const pid = Math.max(...own.machines())
    const kib = /^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
    return Math.round(Number(kib) / 1024)
  }

  test("its engine answers at once, asks the sandbox's name server, and is no other sandbox's", async () => {
    const before = templatesIn(own.dataDir)
    await create("first", "--image", "docker")
    image.keep(own, before)
    const startedAt = performance.now()
    const ms = await create("dev", "--image", "docker")
    const idleMib = privateMib()
    const pulled = await sh("dev", "docker pull registry.invalid/x 2>&1 || true")
    expect(pulled).not.toContain("refused")
    expect(pulled).toMatch(/no such host|name resolution|not known/)
    const run = `tar -C /run/bhatti/kit/bin -c busybox | docker import - tiny > /dev/null
      docker run --rm tiny /busybox echo hello; docker info --format '{{.Driver}} {{.CgroupVersion}}'`
    expect(await sh("dev", run)).toBe("hello\noverlay2 2")
    const all = performance.now() - startedAt
    console.error(
      `create ${Math.round(ms)} ms; to the output of a first container ${Math.round(all)} ms; ${idleMib}, then ${privateMib()} MiB`,
    )
    const network = "docker network create own > /dev/null; docker network inspect own --format '{{.Id}}'"
    expect(await sh("dev", network)).not.toBe(await sh("first", network))
    await own.bhatti(["destroy", "first", "--yes"])
  }, 400_000)

  test.skipIf(!isLong)(
    "it builds an image and runs it; a container's published port is reached through the sandbox's",
    async () => {
      await sh("dev", app)
      const startedAt = performance.now()
      expect(await sh("dev", "docker run --rm app echo hello")).toBe("hello")
      console.error(`docker run ${Math.round(performance.now() - startedAt)} ms`)
      await sh("dev", "docker run --detach --name web --publish 8080:80 app")
      const host = await publish("dev", 8080)
      expect(await ask(host)).toBe("built\n")
      const container = await sh("dev", "docker exec web sh -c 'echo kept > /www/index.html; hostname'")
      expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
      expect(await ask(host)).toBe("kept\n")
      expect(await sh("dev", "docker exec web hostname")).toBe(container)
    },
    400_000,
  )

  test.skipIf(!isLong)(
    "two services of a compose file talk to each other, also after a stop and a wake",
    async () => {
      await sh("dev", composition)
      await until(
        "the client has an answer",
        async () => (await told("dev").catch(() => undefined))?.answer === "built",
      )
      const before = await told("dev")
      await own.bhatti(["stop", "dev"])
      const after = await told("dev")
      expect(after.client).toBe(before.client)
      await until("it counts on", async () => (await told("dev")).count > after.count)
    },
    600_000,
  )

  test.skipIf(!isLong)(
    "the containers of three forks go on, each with a network and files of its own",
    async () => {
      const before = await told("dev")
      await create("fork", "--from", "dev", "--count", "3")
      const forks = ["fork-1", "fork-2", "fork-3"]
      for (const fork of forks) {
        const host = await publish(fork, 8081)
        expect(await ask(host)).toBe("built\n")
        await sh(fork, `docker exec app_web_1 sh -c 'echo ${fork} > /www/index.html'`)
        expect(await ask(host)).toBe(`${fork}\n`)
      }
      for (const fork of forks) {
        await until(`the client of ${fork} sees it`, async () => (await told(fork)).answer === fork)
        const { count, client } = await told(fork)
        expect(client).toBe(before.client)
        expect(count).toBeGreaterThan(before.count)
      }
      expect((await told("dev")).answer).toBe("built")
      // New containers get ids of their own, though the forks began as one.
      const made = await Promise.all(forks.map((fork) => sh(fork, "docker create app")))
      expect(new Set(made).size).toBe(3)
      // A container reaches its owner's other sandboxes by their names.
      expect(await sh("fork-1", "docker exec app_client_1 wget -q -O - http://fork-2:8081/")).toBe("fork-2")
      await own.bhatti(["destroy", ...forks, "--yes"])
    },
    900_000,
  )

  test.skipIf(!isLong)(
    "a resumed snapshot has the containers running, and a restart starts those that are to",
    async () => {
      await own.bhatti(["snapshot", "create", "dev", "--name", "kept"])
      const before = await told("dev")
      const resumed = await own.bhatti(["snapshot", "resume", "kept", "--name", "again"], { deadlineMs })
      expect(resumed.exitCode).toBe(0)
      const { client, count } = await told("again")
      expect(client).toBe(before.client)
      await until("it counts on", async () => (await told("again")).count > count)
      const engine = "docker info --format '{{.ID}}'"
      expect(await sh("again", engine)).toBe(await sh("dev", engine))
      await sh("again", "docker update --restart always app_web_1")
      expect((await own.bhatti(["restart", "again"], { deadlineMs })).exitCode).toBe(0)
      const host = await publish("again", 8081)
      await until("it serves again", async () => (await ask(host)) === "built\n", { deadlineMs })
      expect(await sh("again", "docker ps --format '{{.Names}}'")).toBe("app_web_1")
      expect(await sh("again", engine)).not.toBe(await sh("dev", engine))
    },
    900_000,
  )

  test.skipIf(!isLong)(
    "another user's engine is out of reach and untouched",
    async () => {
      const key = await own.addUser("other")
      const made = await own.bhatti(["create", "--name", "theirs", "--image", "docker"], { key, deadlineMs })
      expect(made.exitCode).toBe(0)
      expect(
        await sh("theirs", "docker ps --all --quiet; docker images --quiet; docker volume ls --quiet", key),
      ).toBe("")
      const { ip } = JSON.parse((await own.bhatti(["inspect", "dev", "--json"])).stdout)
      expect(await sh("theirs", `curl -s -m 5 http://${ip}:8081/ || echo out of reach`, key)).toBe(
        "out of reach",
      )
      await sh("theirs", "docker system prune --all --force --volumes; sudo kill -9 $(pidof dockerd)", key)
      const { count } = await told("dev")
      await until("the own client counts on", async () => (await told("dev")).count > count)
    },
    600_000,
  )
})
