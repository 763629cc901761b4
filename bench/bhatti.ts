/** The bhatti under test: an installation of its own, spoken to as its users do. */

import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { binary as builtBinary, type Installation, install, until } from "../test/support/installation.ts"
import { type TimedCommand, timeCommand } from "./command.ts"

/** The daemon's configuration for a group of measurements. */
export type Settings = {
  /** Most sandboxes kept ready: two, and as many as the last burst of creates had. */
  pool: number
  /** Seconds until an idle one is paused; without it they never are. */
  warmAfterSec?: number
  /** Forks new sandboxes; without it they are cloned. */
  forks?: "auto" | "off"
}

const settingsAtStart: Settings = { pool: 0 }
/** No measurement is to be slowed down by a limit that is there against abuse. */
const unlimited = "{ burst: 1000000, per_minute: 60000000 }"
const rateLimits = ["create", "exec", "other", "proxy_client", "proxy_alias", "proxy_total"]

const configOf = ({ pool, warmAfterSec, forks = "off" }: Settings) =>
  [
    `pool: ${pool}`,
    `forks: ${forks}`,
    "pool_memory_mb: 4096",
    `warm_after: ${warmAfterSec ?? 0}`,
    "rate_limits:",
    ...rateLimits.map((name) => `  ${name}: ${unlimited}`),
    "",
  ].join("\n")
/** Kept ready of a size that is in use. */
const poolMin = 2
const fillDeadlineMs = 300_000
const forkDeadlineMs = 120_000
/** Long enough for a running machine to use some processor time. */
const restMs = 200

export class Bhatti implements AsyncDisposable {
  readonly binary: string
  readonly installation: Installation
  readonly #interfacesBefore = new Set(interfaces())
  #settings = settingsAtStart
  #ownConfig: string | undefined

  private constructor(binary: string, installation: Installation) {
    this.binary = binary
    this.installation = installation
  }

  static async start(options: { binary: string | undefined; settings?: Settings }): Promise<Bhatti> {
    const binary = options.binary ?? builtBinary
    const bhatti = new Bhatti(binary, await install({ binary, launcher: ["setsid"] }))
    await bhatti.#restartWith(options.settings ?? settingsAtStart)
    return bhatti
  }

  /** Gives the daemon other settings, and with them a fresh start. */
  async configure(settings: Settings): Promise<void> {
    if (!Bun.deepEquals(settings, this.#settings)) await this.#restartWith(settings)
  }

  async #restartWith(settings: Settings): Promise<void> {
    await this.installation.stopDaemon("SIGTERM")
    const path = join(this.installation.dataDir, "config.yaml")
    // Settings that keep it apart from other installations stay.
    this.#ownConfig ??= (await Bun.file(path).text()).replace(/^(pool|forks): .*$/gm, "")
    await Bun.write(path, `${this.#ownConfig}\n${configOf(settings)}`)
    await this.installation.startDaemon()
    this.#settings = settings
    if (settings.forks === "auto") await this.#untilForked()
  }

  /** The first sandboxes are cloned. Throws if none is forked at last, since the rows would be about something else. */
  async #untilForked(): Promise<void> {
    const name = "until-forked"
    await until(
      "sandboxes are forked",
      async () => {
        await this.api("POST", "/sandboxes", { name })
        const { reply } = await this.api("GET", `/events?sandbox=${name}&type=sandbox.created`)
        await this.api("DELETE", `/sandboxes/${name}`)
        return (reply as { meta: { from: string } }[]).at(-1)?.meta.from === "fork"
      },
      { deadlineMs: forkDeadlineMs },
    )
  }

  /**
   * Waits until the pool is as full as lately needed and at rest, so that filling it slows nothing that is measured.
   */
  async poolIsReady(): Promise<void> {
    await until(
      "the pool is full and at rest",
      async () => {
        const before = this.#machineTicks()
        if (before.length < Math.min(this.#settings.pool, poolMin)) return false
        await Bun.sleep(restMs)
        return Bun.deepEquals(this.#machineTicks(), before)
      },
      { deadlineMs: fillDeadlineMs },
    )
  }

  /** Processor time of every machine so far. A paused one uses none. */
  #machineTicks(): string[] {
    return this.installation.machines().map((pid) => {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
      const [, , , , , , , , , , , user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      return `${pid} ${user} ${system}`
    })
  }

  cli(...args: string[]): Promise<TimedCommand> {
    const { url, key, dataDir } = this.installation
    const env = {
      PATH: process.env["PATH"] ?? "/usr/bin:/bin",
      HOME: join(dataDir, ".."),
      LC_ALL: "C.UTF-8",
      BHATTI_URL: url,
      BHATTI_TOKEN: key,
    }
    return timeCommand([this.binary, ...args], { env, cwd: "/" })
  }

  /** Wall time of a request to the HTTP interface over a connection that is kept. */
  async api(method: string, path: string, body?: unknown): Promise<{ ms: number; reply: unknown }> {
    const { url, key } = this.installation
    const startedAt = performance.now()
    const response = await fetch(`${url}${path}`, {
      method,
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const reply: unknown = await response.json()
    const ms = performance.now() - startedAt
    if (!response.ok)
      throw new Error(`${method} ${path}: status ${response.status}: ${JSON.stringify(reply)}`)
    return { ms, reply }
  }

  sandboxDirectory(id: string): string {
    return join(this.installation.dataDir, "sandboxes", id)
  }

  /** Stops the daemon. What should be gone when every sandbox was destroyed, in words; empty if nothing is left. */
  async leftovers(): Promise<string[]> {
    const { installation } = this
    const listed = JSON.parse((await this.cli("list", "--json")).stdout) as { name: string }[]
    await installation.stopDaemon("SIGTERM")
    const held = heldInterfaces()
    return [
      ...listed.map(({ name }) => `sandbox ${name}`),
      ...installation.machines().map((pid) => `QEMU process ${pid}`),
      ...readdirSync(join(installation.dataDir, "sandboxes")).map((id) => `directory sandboxes/${id}`),
      ...interfaces()
        .filter(
          (name) =>
            /^bh[0-9a-f]{13}$|^bht/.test(name) && !this.#interfacesBefore.has(name) && !held.has(name),
        )
        .map((name) => `TAP device ${name}`),
    ]
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.installation[Symbol.asyncDispose]() as Promise<void>
  }
}

function interfaces(): string[] {
  return readdirSync("/sys/class/net")
}

/** TAP devices of running QEMU processes, whoever's they are: another installation may be at work. */
function heldInterfaces(): Set<string> {
  const held = new Set<string>()
  for (const pid of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      if (!readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu")) continue
      for (const fd of readdirSync(`/proc/${pid}/fdinfo`)) {
        const name = /^iff:\s*(\S+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1]
        if (name !== undefined) held.add(name)
      }
    } catch (error) {
      // It may end while it is looked at.
      if (!["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error
    }
  }
  return held
}
