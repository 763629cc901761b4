/** `bhatti logs`. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import type { ExecExit } from "@bhatti/sdk/exec-stream"
import type { StreamOutput } from "@bhatti/sdk/stream-socket"
import { command } from "../command.ts"
import { tellingFate } from "../lost-sandbox.ts"
import type { Output } from "../output.ts"
import { onSignals, signalExitCodes } from "../signals.ts"

export const logs = command({
  args: ["sandbox"],
  optionalArgs: ["process"],
  description: `Prints the newest output of a process, unchanged; without PROCESS that of the init script. A session keeps 256 KiB, any other process 1 MiB of each of
its streams, unless it was started otherwise. It needs no terminal, does not disturb attached clients, and works after the process has ended, for a day and
until the sandbox boots again (bhatti help wait). bhatti ps lists the processes.

Standard output and standard error come in the order in which the sandbox has read them from the program; what was written to both within a moment may be
the other way round, and so may be what is older than the last 500 changes between the two.

With --json each line is an object: {"type":"stdout","data":"…"}, {"type":"stderr","data":"…"}, {"type":"skipped","stdout":N,"stderr":N} for output that is
not kept any more, and {"type":"exit",…} at the end of a process that has ended. Bytes that are no UTF-8 are replaced there.`,
  options: {
    follow: { type: "flag", short: "f", summary: "Go on until the process ends; Ctrl-C leaves it running" },
    since: {
      type: "seconds",
      value: "TIME",
      max: limits.processRetainSecMax,
      summary: "Only output of the last 90, 5m or 2h",
    },
    stdout: { type: "flag", summary: "Only standard output" },
    stderr: { type: "flag", summary: "Only standard error" },
  },
  refuse: ({ options }) =>
    options.stdout && options.stderr ? "--stdout and --stderr exclude each other" : undefined,
  examples: [
    "bhatti logs dev",
    "bhatti logs dev init | tail",
    "bhatti logs dev p2 -f",
    "bhatti logs dev build --since 5m --stderr",
    "bhatti logs dev build --json | jq -r 'select(.type == \"stderr\").data'",
  ],
  async run({ client, args, options, isJson, out }) {
    const sandbox = args.sandbox
    const process = args.process ?? "init"
    const streams = options.stdout ? onlyStdout : options.stderr ? onlyStderr : both
    const isFollowed = options.follow
    const asked = { sandbox, process, sinceSec: options.since, streams, isFollowed, isJson }
    return await tellingFate(sandbox, { client, during: "while its output was read" }, async () => {
      const isPlain = options.since === undefined && streams === both && !isFollowed && !isJson
      const params = { id: sandbox, process }
      const isCommand = isPlain && args.process !== undefined && !(await isSession(client, params))
      if (!isPlain || isCommand) return await readProcess(client, asked, out)
      const { copyToOutput } = await import("../copy/download.ts")
      await copyToOutput(await client.readSession({ params: { id: sandbox, session: process } }), out)
      return 0
    })
  },
})

const both = ["stdout", "stderr"] as const
const onlyStdout = ["stdout"] as const
const onlyStderr = ["stderr"] as const
type Asked = {
  sandbox: string
  process: string
  sinceSec: number | undefined
  streams: readonly ("stdout" | "stderr")[]
  isFollowed: boolean
  isJson: boolean
}

/** A process that is not there is the session's question, whose answer has the hint. */
async function isSession(client: Client, params: { id: string; process: string }): Promise<boolean> {
  return (await client.getProcess({ params })).kind === "session"
}

async function readProcess(
  client: Client,
  { sandbox, process, sinceSec, streams, isFollowed, isJson }: Asked,
  out: Output,
): Promise<number> {
  // A WebSocket that is refused has no reason.
  await client.getProcess({ params: { id: sandbox, process } })
  const stream = client.processStream(sandbox, process, {
    mode: "watch",
    follow: isFollowed ? "true" : "false",
    ...(sinceSec !== undefined && { since_sec: sinceSec }),
  })
  let exitCode: number | undefined
  using _listening = onSignals(["SIGINT", "SIGTERM", "SIGHUP"], (signal) => {
    exitCode ??= signal === "SIGINT" && isFollowed ? 0 : signalExitCodes[signal]
    stream.leave()
  })
  out.stdout.prepare()
  const lines = isJson ? new JsonLines(out) : new PlainOutput(out)
  try {
    for await (const output of stream.output) if (streams.includes(output.channel)) await lines.print(output)
    await lines.end(await stream.exit)
    return 0
  } catch (error) {
    const isRead = error instanceof AppError && error.reason === "left" && !isFollowed
    if (exitCode === undefined && !isRead) throw error
    await lines.end()
    return exitCode ?? 0
  } finally {
    stream.leave()
  }
}

class PlainOutput {
  readonly #out: Output

  constructor(out: Output) {
    this.#out = out
  }

  async print({ channel, bytes, skipped }: StreamOutput): Promise<void> {
    if (skipped !== undefined) await this.#out.talk(`bhatti: ${skipped} bytes of ${channel} were dropped`)
    await this.#out[channel].write(bytes)
  }

  async end(): Promise<void> {}
}

class JsonLines {
  readonly #out: Output
  /** A character may be split between two pieces, so each stream is decoded as a whole. */
  readonly #decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }

  constructor(out: Output) {
    this.#out = out
  }

  async print({ channel, bytes, skipped }: StreamOutput): Promise<void> {
    if (skipped !== undefined)
      await this.#line({ type: "skipped", ...{ stdout: 0, stderr: 0, [channel]: skipped } })
    await this.#text(channel, this.#decoders[channel].decode(bytes, { stream: true }))
  }

  async end(exit?: ExecExit): Promise<void> {
    for (const channel of both) await this.#text(channel, this.#decoders[channel].decode())
    if (exit) await this.#line({ type: "exit", ...exit })
  }

  async #text(type: "stdout" | "stderr", data: string): Promise<void> {
    if (data !== "") await this.#line({ type, data })
  }

  async #line(line: object): Promise<void> {
    await this.#out.result(JSON.stringify(line))
  }
}
