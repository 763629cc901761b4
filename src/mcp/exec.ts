/**
 * The tools `exec` and `process`. A command is a kept process of its sandbox, so that its output stays readable there
 * after it was cut, and a daemon's restart ends nothing. A cancelled call kills it.
 */

import { AppError } from "@bhatti/contract/errors"
import { offsetHeader, totalHeader } from "@bhatti/contract/limits"
import type { Process } from "@bhatti/contract/process"
import type { ExecExit } from "@bhatti/sdk/exec-stream"
import type { Call } from "./call.ts"
import { CutOutput, wholeCharacters } from "./cut-output.ts"
import type { ExecInput, ProcessInput } from "./tool-inputs.ts"

const timeoutSecDefault = 300
/** How long the output of a cut or detached command is kept after its end. */
const retainSec = 3600
const killMs = 5000
const pageBytes = 16_000

export async function exec(call: Call, input: ExecInput): Promise<string> {
  const { client, signal } = call
  const { sandbox, background, stdin } = input
  const process = await client.startProcess({
    params: { id: sandbox },
    body: {
      cmd: ["sh", "-c", input.command],
      env: input.env,
      cwd: input.cwd,
      user: input.user,
      timeout_sec: input.timeout_sec ?? (background ? undefined : timeoutSecDefault),
      retain_sec: retainSec,
      stdin,
    },
  })
  const id = process.process_id
  if (signal.aborted) return await killed(call, sandbox, id)
  if (background) return `process: ${id}\nIt runs on; read, wait for or signal it with the tool process.`
  const stream = client.processStream(sandbox, id, { mode: "watch", follow: "true", stdout: 0, stderr: 0 })
  let killing: Promise<string> | undefined
  const kill = () => {
    killing = killed(call, sandbox, id)
    // Its failure is the call's.
    killing.catch(() => undefined)
  }
  signal.addEventListener("abort", kill, { once: true })
  try {
    const output = { stdout: new CutOutput(), stderr: new CutOutput() }
    for await (const { channel, bytes, skipped } of stream.output) {
      output[channel].add(bytes, skipped)
      const line = Buffer.from(bytes).toString("utf8").trimEnd().split("\n").at(-1)
      if (line) call.tell(line)
    }
    const end = await stream.exit
    const isCut = output.stdout.isCut || output.stderr.isCut
    if (!isCut) await forget(call, sandbox, id)
    return resultText(id, end, output, isCut)
  } finally {
    signal.removeEventListener("abort", kill)
    await killing?.catch(() => undefined)
    stream.leave()
  }
}

/** The call's signal has aborted already, so the kill has a deadline of its own. */
async function killed({ client }: Call, sandbox: string, id: string): Promise<string> {
  await client.signalProcess({
    params: { id: sandbox, process: id },
    body: { signal: "KILL" },
    signal: AbortSignal.timeout(killMs),
  })
  return `process ${id} was killed`
}

/** All of its output has arrived. */
async function forget({ client }: Call, sandbox: string, id: string): Promise<void> {
  try {
    await client.deleteProcess({ params: { id: sandbox, process: id } })
  } catch (error) {
    // It is removed when its time is over.
    if (!(error instanceof AppError)) throw error
  }
}

function resultText(
  id: string,
  end: ExecExit,
  output: { stdout: CutOutput; stderr: CutOutput },
  isCut: boolean,
): string {
  const parts = [endText(end) + (isCut ? `\nprocess: ${id} (its output is kept for an hour)` : "")]
  for (const stream of ["stdout", "stderr"] as const) {
    if (output[stream].isEmpty) continue
    parts.push(
      `${stream}:\n${output[stream].text(`tool process, action=read process=${id} stream=${stream}`)}`,
    )
  }
  return parts.join("\n")
}

function endText({ exit_code, signal, timed_out, reason, detail }: ExecExit): string {
  const words = [
    ...(timed_out ? ["it was killed: its timeout_sec is over"] : signal ? [`ended by SIG${signal}`] : []),
    ...(reason === "out_of_memory" ? ["the sandbox ran out of memory"] : []),
    ...(detail?.disk_full ? ["the sandbox's disk is full"] : []),
  ]
  return `exit code: ${exit_code}${words.length === 0 ? "" : ` (${words.join("; ")})`}`
}

export async function processTool(call: Call, input: ProcessInput): Promise<string> {
  const { client, signal } = call
  if (input.action === "list") {
    const all = await client.listProcesses({ params: { id: input.sandbox }, signal })
    return all.length === 0 ? "no processes are kept" : all.map(processLine).join("\n")
  }
  const { process } = input
  if (process === undefined)
    throw new AppError("invalid", `action ${input.action} needs process`, {
      hint: "give the id that exec returned, or use action list",
    })
  const params = { id: input.sandbox, process }
  switch (input.action) {
    case "read":
      return await readPage(call, input, params)
    case "wait": {
      await client.waitProcess({ params, query: { timeout_sec: input.timeout_sec ?? 30 }, signal })
      return processLine(await client.getProcess({ params, signal }))
    }
    case "signal":
      await client.signalProcess({ params, body: { signal: input.signal ?? "TERM" }, signal })
      return `SIG${input.signal ?? "TERM"} was sent to ${process}`
    case "write": {
      const end = input.end ? ("true" as const) : ("false" as const)
      const { input: taken } = await client.writeProcess({
        params,
        query: { end },
        bytes: input.text ?? "",
        signal,
      })
      return `${process} has taken ${taken} bytes of input`
    }
  }
}

async function readPage(
  { client, signal }: Call,
  { stream = "stdout", offset, limit = pageBytes }: ProcessInput,
  params: { id: string; process: string },
): Promise<string> {
  const asked = Math.min(limit, pageBytes)
  const query = { stream, limit: asked, ...(offset !== undefined && { offset }) }
  const response = await client.readProcess({ params, query, signal })
  const first = Number(response.headers.get(offsetHeader) ?? offset ?? 0)
  const total = Number(response.headers.get(totalHeader) ?? 0)
  const bytes = Buffer.from(await response.arrayBuffer())
  const length = first + bytes.length < total ? wholeCharacters(bytes) || bytes.length : bytes.length
  const next = first + length
  const more = next < total ? `; next offset=${next}` : "; no more now"
  const missing =
    offset !== undefined && first > offset ? `; bytes ${offset} to ${first} are not kept any more` : ""
  return `bytes ${first} to ${next} of ${total}${more}${missing}\n${bytes.toString("utf8", 0, length)}`
}

function processLine({ process_id, name, argv, running, ended, output }: Process): string {
  const state = running ? "runs" : ended ? endText(ended) : "ended"
  const words = argv[0] === "sh" && argv[1] === "-c" ? argv.slice(2) : argv
  const shown = words.join(" ").replaceAll(/\s+/g, " ").slice(0, 120)
  const bytes = `stdout ${output.stdout.total} bytes, stderr ${output.stderr.total} bytes`
  return `${process_id}${name === null ? "" : ` (${name})`}: ${state}; ${bytes}; ${shown}`
}
