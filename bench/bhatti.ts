/** The bhatti under test: an installation of its own, spoken to as its users do. */

import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { binary as builtBinary, type Installation, install } from "../test/support/installation.ts"
import { type TimedCommand, timeCommand } from "./command.ts"

export class Bhatti implements AsyncDisposable {
  readonly binary: string
  readonly installation: Installation
  readonly #interfacesBefore = new Set(interfaces())

  private constructor(binary: string, installation: Installation) {
    this.binary = binary
    this.installation = installation
  }

  static async start(options: { binary: string | undefined }): Promise<Bhatti> {
    const binary = options.binary ?? builtBinary
    return new Bhatti(binary, await install({ binary }))
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

  /** What should be gone when every sandbox was destroyed, in words; empty if nothing is left. */
  async leftovers(): Promise<string[]> {
    const { installation } = this
    const listed = JSON.parse((await this.cli("list", "--json")).stdout) as { name: string }[]
    const held = heldInterfaces()
    return [
      ...listed.map(({ name }) => `sandbox ${name}`),
      ...installation.machines().map((pid) => `QEMU process ${pid}`),
      ...readdirSync(join(installation.dataDir, "sandboxes")).map((id) => `directory sandboxes/${id}`),
      ...interfaces()
        .filter((name) => name.startsWith("bht") && !this.#interfacesBefore.has(name) && !held.has(name))
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
