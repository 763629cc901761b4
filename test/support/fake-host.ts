/**
 * A host without machines, for tests of everything above it: it keeps the ports' promises in memory. A guest here runs
 * the few programs in `programs`.
 */

import { AppError } from "../../src/contract/errors.ts"
import type {
  Guest,
  GuestCommand,
  GuestIdentity,
  GuestProcess,
  Host,
  OutputChunk,
} from "../../src/core/host.ts"

export type FakeHost = Host & {
  running: Map<number, { directory: string }>
  directories: Set<string>
  identities: GuestIdentity[]
  /** What goes wrong next: the named step throws. */
  failAt: string | undefined
  freeMibNow: number
  imagesMissing: boolean
}

export function fakeHost(): FakeHost {
  let nextPid = 1000
  const templates = new Map<string, { fingerprint: string; blankOverlayPath: string }>()
  const guestsByDirectory = new Map<string, FakeGuest>()
  const fail = (step: string) => {
    if (host.failAt === step) throw new AppError("unavailable", `injected at ${step}`)
  }
  const host: FakeHost = {
    running: new Map(),
    directories: new Set(),
    identities: [],
    failAt: undefined,
    freeMibNow: 100_000,
    imagesMissing: false,
    network: "user",
    machines: {
      async findTemplate(spec) {
        return templates.get(JSON.stringify(spec))
      },
      async beginTemplate(spec) {
        fail("template")
        return {
          directory: "/template",
          diskPath: "/template/disk",
          blankOverlayPath: "/template/blank",
          boot: () => ({
            process: { pid: nextPid++, startTicks: 1, bootId: "fake" },
            directory: "/template",
          }),
          async save() {
            const template = { fingerprint: JSON.stringify(spec), blankOverlayPath: "/template/blank" }
            templates.set(JSON.stringify(spec), template)
            return template
          },
          async abandon() {},
        }
      },
      removeLeftovers() {},
      prepareSockets: () => ({ agent: 0, qmp: 0 }),
      clone({ directory }) {
        fail("clone")
        const pid = nextPid++
        host.running.set(pid, { directory })
        return { process: { pid, startTicks: 1, bootId: "fake" }, directory }
      },
      isRunning: ({ process }) => host.running.has(process.pid),
      async kill({ process, directory }) {
        host.running.delete(process.pid)
        guestsByDirectory.get(directory)?.close()
      },
      async killNamed() {},
      async growDisk() {
        fail("grow")
      },
      diagnose: async () => ({ qemu: "", console: "" }),
      agentSocket: (directory) => `${directory}/agent.sock`,
    },
    disks: {
      async createBase() {},
      async createSandbox({ id }) {
        fail("disk")
        host.directories.add(id)
        return { directory: `/fake/${id}`, overlayPath: `/fake/${id}/disk` }
      },
      directoryOf: (id) => `/fake/${id}`,
      async removeSandbox(id) {
        host.directories.delete(id)
      },
      listSandboxes: async () => [...host.directories],
      freeMib: async () => host.freeMibNow,
    },
    images: {
      async readImage(name) {
        if (name !== "minimal" || host.imagesMissing) {
          throw new AppError("not_found", `no image named "${name}"`, { hint: "sudo bhatti init" })
        }
        return { name, hash: "image", file: "/image", diskMib: 8192 }
      },
      readKernel: async () => ({
        hash: "kernel",
        vmlinux: "/vmlinux",
        initramfs: "/initramfs",
        version: "6.1",
      }),
    },
    guests: {
      async open({ socketPath }) {
        const guest = new FakeGuest(host)
        guestsByDirectory.set(socketPath.replace(/\/agent\.sock$/, ""), guest)
        return guest
      },
    },
  }
  return host
}

class FakeGuest implements Guest {
  readonly #host: FakeHost
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  readonly closed = this.#closed.promise
  #env: Record<string, string> = {}

  constructor(host: FakeHost) {
    this.#host = host
  }

  async waitReady(): Promise<unknown> {
    return { generation: 1 }
  }

  async ping(): Promise<{ personalised: boolean }> {
    return { personalised: true }
  }

  async personalise(identity: GuestIdentity): Promise<unknown> {
    if (this.#host.failAt === "personalise") throw new AppError("unavailable", "injected at personalise")
    this.#env = identity.env
    this.#host.identities.push(identity)
    return {}
  }

  async quiesce(): Promise<unknown> {
    return {}
  }

  exec(command: GuestCommand): GuestProcess {
    return new FakeProcess({ ...command, env: { ...this.#env, ...command.env } })
  }

  close(): void {
    this.#closed.resolve({ reason: "closed" })
  }
}

/** Programs: `echo`, `cat`, `env`, `exit N`, `flood BYTES`, `sleep` (until killed), `warn` (stderr). */
class FakeProcess implements GuestProcess {
  readonly started = Promise.resolve({ pid: 42 })
  readonly result: Promise<{ exitCode: number; signal: string | null }>
  readonly output: AsyncIterable<OutputChunk>
  readonly #result = Promise.withResolvers<{ exitCode: number; signal: string | null }>()
  readonly #input: Uint8Array[] = []
  readonly #inputEnded = Promise.withResolvers<void>()

  constructor(command: GuestCommand) {
    this.result = this.#result.promise
    this.result.catch(() => undefined)
    this.output = this.#run(command)
  }

  async *#run(command: GuestCommand): AsyncGenerator<OutputChunk> {
    const [program, ...args] = command.argv
    const text = (words: string, channel: "stdout" | "stderr" = "stdout") => ({
      channel,
      bytes: Buffer.from(words),
    })
    switch (program) {
      case "echo":
        yield text(`${args.join(" ")}\n`)
        break
      case "warn":
        yield text("out\n")
        yield text("err\n", "stderr")
        break
      case "env":
        for (const [key, value] of Object.entries(command.env ?? {})) yield text(`${key}=${value}\n`)
        break
      case "cat":
        if (command.stdin) await this.#inputEnded.promise
        for (const bytes of this.#input) yield { channel: "stdout", bytes }
        break
      case "flood":
        for (let left = Number(args[0]); left > 0; left -= 32_768) {
          yield { channel: "stdout", bytes: new Uint8Array(Math.min(left, 32_768)).fill(97) }
        }
        break
      case "sleep": {
        const ended = await this.#result.promise
        if (ended) return
        break
      }
      case "exit":
        return this.#result.resolve({ exitCode: Number(args[0]), signal: null })
      case "true":
        break
      default:
        return this.#result.reject(new AppError("not_found", `no program named "${program}" in the sandbox`))
    }
    this.#result.resolve({ exitCode: 0, signal: null })
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#input.push(bytes.slice())
  }

  endInput(): void {
    this.#inputEnded.resolve()
  }

  signal(name: string): void {
    this.#result.resolve({ exitCode: name === "INT" ? 130 : 143, signal: name })
  }

  resize(): void {}

  kill(): void {
    this.#result.resolve({ exitCode: 137, signal: "KILL" })
  }
}
