/** Requests to an installation's daemon over HTTP, as short as tests want them, each with a deadline. */

import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Installation } from "./installation.ts"

export type Reply = { status: number; body: unknown }

const requestDeadlineMs = 90_000

export class Requests {
  readonly #own: Installation

  constructor(own: Installation) {
    this.#own = own
  }

  /** Status 0: the daemon went away without an answer. */
  async send(method: string, path: string, body?: unknown): Promise<Reply> {
    try {
      const response = await fetch(`${this.#own.url}${path}`, {
        method,
        headers: { authorization: `Bearer ${this.#own.key}`, "content-type": "application/json" },
        signal: AbortSignal.timeout(requestDeadlineMs),
        keepalive: false,
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      return { status: response.status, body: text === "" ? undefined : JSON.parse(text) }
    } catch (error) {
      return { status: 0, body: String(error) }
    }
  }

  create(name: string, input: Record<string, unknown> = {}): Promise<Reply> {
    return this.send("POST", "/sandboxes", { name, ...input })
  }

  stop(name: string): Promise<Reply> {
    return this.send("POST", `/sandboxes/${name}/stop`)
  }

  start(name: string): Promise<Reply> {
    return this.send("POST", `/sandboxes/${name}/start`)
  }

  destroy(name: string): Promise<Reply> {
    return this.send("DELETE", `/sandboxes/${name}`)
  }

  exec(name: string, script: string): Promise<Reply> {
    return this.send("POST", `/sandboxes/${name}/exec`, { cmd: ["sh", "-c", script] })
  }

  /** Returns the output of a script, which must succeed. */
  async output(name: string, script: string): Promise<string> {
    const { status, body } = await this.exec(name, script)
    if (status !== 200) throw new Error(`${script} in ${name}: ${status} ${JSON.stringify(body)}`)
    return (body as { stdout: string }).stdout
  }

  async list(): Promise<Sandbox[]> {
    const { status, body } = await this.send("GET", "/sandboxes")
    if (status !== 200) throw new Error(`list: ${status} ${JSON.stringify(body)}`)
    return body as Sandbox[]
  }

  async show(name: string): Promise<Sandbox | undefined> {
    return (await this.list()).find((one) => one.name === name)
  }

  /** Directories, machines and TAP devices that there are beyond what the list explains; one line each. */
  async leftovers(): Promise<string[]> {
    const sandboxes = await this.list()
    const ids = sandboxes.map(({ id }) => id as string)
    const running = sandboxes.filter(({ status }) => status === "running").map(({ id }) => id as string)
    const machines = this.#own.machines().map(nameOfMachine)
    const wrong = [
      ...readdirSync(join(this.#own.dataDir, "sandboxes"))
        .filter((id) => !ids.includes(id))
        .map((id) => `directory ${id}`),
      ...machines.filter((name) => !running.includes(name)).map((name) => `machine ${name}`),
      ...machines
        .filter((name, index) => machines.indexOf(name) !== index)
        .map((name) => `second machine ${name}`),
      ...running.filter((id) => !machines.includes(id)).map((id) => `no machine of ${id}`),
    ]
    for (const sandbox of sandboxes) {
      if (sandbox.status !== "running" && sandbox.status !== "stopped") {
        wrong.push(`${sandbox.name} is ${sandbox.status}`)
      }
    }
    return wrong
  }
}

/** The sandbox's id: its QEMU holds its disk. A forked one's command line is its zygote's. Else QEMU's own name. */
export function nameOfMachine(pid: number): string {
  const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
  return sandboxHeldBy(pid) ?? words[words.indexOf("-name") + 1] ?? ""
}

function sandboxHeldBy(pid: number): string | undefined {
  try {
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      const [, id] =
        /\/sandboxes\/(sb_[0-9a-z]+)\/disk\.qcow2$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? []
      if (id !== undefined) return id
    }
  } catch {
    // It has ended, or belongs to another user.
  }
  return undefined
}

export function machineOf(own: Installation, id: string): number {
  const pid = own.machines().find((one) => nameOfMachine(one) === id)
  if (pid === undefined) throw new Error(`no machine of ${id} runs`)
  return pid
}

/** TAP devices of these sandboxes; a TAP is named after its sandbox. */
export function tapsOf(ids: string[]): string[] {
  return readdirSync("/sys/class/net").filter((name) => ids.some((id) => name === `bht${id.slice(3, 15)}`))
}
