/** `bhatti logs`. */

import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import { command } from "../command.ts"
import { tellingFate } from "../lost-sandbox.ts"
import type { Output } from "../output.ts"
import { onSignals, signalExitCodes } from "../signals.ts"

export const logs = command({
  args: ["sandbox"],
  optionalArgs: ["process"],
  description: `Prints the newest output of a process, unchanged; without PROCESS that of the init script. A session keeps 256 KiB, any other process 1 MiB of each of
its streams, unless it was started otherwise. It needs no terminal, does not disturb attached clients, and works after the process has ended, for a day and
until the sandbox boots again (bhatti help wait). bhatti ps lists the processes.`,
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
  ],
  async run({ client, args, options, out }) {
    const sandbox = args.sandbox
    const process = args.process ?? "init"
    const streams = options.stdout ? onlyStdout : options.stderr ? onlyStderr : both
    const asked = { sandbox, process, sinceSec: options.since, streams }
    return await tellingFate(sandbox, { client, during: "while its output was read" }, async () => {
      if (options.follow) return await follow(client, asked, out)
      const isPlain = options.since === undefined && streams === both
      const params = { id: sandbox, process }
      const isCommand = isPlain && args.process !== undefined && !(await isSession(client, params))
      if (isPlain && !isCommand) {
        const { copyToOutput } = await import("../copy/download.ts")
        await copyToOutput(await client.readSession({ params: { id: sandbox, session: process } }), out)
      } else await readKept(client, asked, out)
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
}

/** A process that is not there is the session's question, whose answer has the hint. */
async function isSession(client: Client, params: { id: string; process: string }): Promise<boolean> {
  return (await client.getProcess({ params })).kind === "session"
}

async function readKept(
  client: Client,
  { sandbox, process, sinceSec, streams }: Asked,
  out: Output,
): Promise<void> {
  const { copyToOutput } = await import("../copy/download.ts")
  for (const stream of streams) {
    const query = { stream, ...(sinceSec !== undefined && { since_sec: sinceSec }) }
    const response = await client.readProcess({ params: { id: sandbox, process }, query })
    await copyToOutput(response, out, stream)
  }
}

async function follow(
  client: Client,
  { sandbox, process, sinceSec, streams }: Asked,
  out: Output,
): Promise<number> {
  const query = { mode: "watch", ...(sinceSec !== undefined && { since_sec: sinceSec }) } as const
  const stream = client.processStream(sandbox, process, query)
  let exitCode: number | undefined
  using _listening = onSignals(["SIGINT", "SIGTERM", "SIGHUP"], (signal) => {
    exitCode ??= signal === "SIGINT" ? 0 : signalExitCodes[signal]
    stream.leave()
  })
  out.stdout.prepare()
  try {
    for await (const { channel, bytes, skipped } of stream.output) {
      if (!streams.includes(channel)) continue
      if (skipped !== undefined) await out.talk(`bhatti: ${skipped} bytes of ${channel} were dropped`)
      await out[channel].write(bytes)
    }
    await stream.exit
    return 0
  } catch (error) {
    if (exitCode === undefined) throw error
    return exitCode
  } finally {
    stream.leave()
  }
}
