/** RUN: its command in the builder, with its secrets and mounts, which are in memory and never on a kept disk. */

import { AppError } from "@bhatti/contract/errors"
import type { Mount } from "../../rules/dockerfile/instruction.ts"
import type { RunStep } from "../../rules/dockerfile/plan.ts"
import { DockerfileError } from "../../rules/dockerfile/refusal.ts"
import { answerDeadlineMs } from "../awake.ts"
import type { Guest } from "../host.ts"
import type { Builder } from "./builder.ts"
import type { BuildOutput } from "./output.ts"

export type Secrets = Readonly<Record<string, string>>

/** In memory. */
const secretsDirectory = "/run/secrets"
const mountsDirectory = "/run/bhatti-build"
const scriptPath = `${mountsDirectory}/script`
const deadline = { deadlineMs: answerDeadlineMs }

export async function runStep(
  builder: Builder,
  step: RunStep,
  { secrets, output, signal }: { secrets: Secrets; output: BuildOutput; signal: AbortSignal },
): Promise<void> {
  await using undo = new AsyncDisposableStack()
  const env = { ...step.env }
  for (const [index, mount] of step.mounts.entries()) {
    const secret = mount.type === "secret" ? secrets[mount.id] : undefined
    if (mount.type === "secret" && secret === undefined) continue
    if (mount.type === "secret" && mount.env !== null) env[mount.env] = secret ?? ""
    if (mount.type === "secret" && mount.env !== null && mount.target === null) continue
    undo.use(await place(builder, mount, { index, secret: secret ?? "", signal }))
  }
  let { argv } = step
  if (step.script !== null) {
    await write(builder.guest, scriptPath, step.script, { mode: "0755", uid: 0, gid: 0 })
    undo.defer(() => removeFile(builder.guest, scriptPath))
    argv = [scriptPath]
  }
  const user = step.user === "" ? "0" : step.user
  const ended = await builder
    .run(
      { argv, env, user, cwd: step.cwd },
      { signal, onOutput: (channel, bytes) => output.bytes(channel, bytes) },
    )
    .finally(() => output.endProgram())
  if (ended.exitCode === 0) return
  const how = ended.signal === null ? `exit code ${ended.exitCode}` : `SIG${ended.signal}`
  const detail = ended.reason === "out_of_memory" ? "; the builder had too little memory" : ""
  throw new AppError("invalid", `${how}${detail}`, {
    reason: "step_failed",
    hint:
      ended.reason === "out_of_memory"
        ? "give the build more with --memory"
        : "the end of its output says why; the steps before it stay in the cache",
  })
}

/** A required secret is missed before anything runs. */
export function checkSecrets(step: RunStep, secrets: Secrets): void {
  for (const mount of step.mounts)
    if (mount.type === "secret" && mount.isRequired && secrets[mount.id] === undefined)
      throw new DockerfileError(step.line, `the secret "${mount.id}" was not given`)
}

async function place(
  builder: Builder,
  mount: Mount,
  { index, secret, signal }: { index: number; secret: string; signal: AbortSignal },
): Promise<AsyncDisposable> {
  await using undo = new AsyncDisposableStack()
  const { guest } = builder
  const target = mount.target ?? `${secretsDirectory}/${mount.type === "secret" ? mount.id : ""}`
  if (mount.type !== "secret") {
    await makeTarget(builder, undo, { target, isDirectory: true, signal })
    await builder.tool(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", target], signal)
  } else if (target.startsWith("/run/")) {
    await write(guest, target, secret, mount)
    undo.defer(() => removeFile(guest, target))
    return take(undo)
  } else {
    const source = `${mountsDirectory}/${index}`
    await write(guest, source, secret, mount)
    undo.defer(() => removeFile(guest, source))
    await makeTarget(builder, undo, { target, isDirectory: false, signal })
    await builder.tool(["mount", "-o", "bind", source, target], signal)
  }
  undo.defer(() => builder.tool(["umount", "-l", target], AbortSignal.timeout(deadline.deadlineMs)))
  return take(undo)
}

function take(undo: AsyncDisposableStack): AsyncDisposable {
  return undo.move()
}

/** The place of a mount, which goes again if it was not there. */
async function makeTarget(
  { guest }: Builder,
  undo: AsyncDisposableStack,
  { target, isDirectory }: { target: string; isDirectory: boolean; signal: AbortSignal },
): Promise<void> {
  const isThere = await guest.ask({ op: "statFile", path: target }, deadline).then(
    () => true,
    () => false,
  )
  if (isThere) return
  if (isDirectory)
    await guest.ask({ op: "makeDirectory", path: target, parents: true, mode: "0755", owner: root }, deadline)
  else await write(guest, target, "", { mode: "0600", ...root })
  undo.defer(() => removeFile(guest, target))
}

const root = { uid: 0, gid: 0 }

async function write(
  guest: Guest,
  path: string,
  text: string,
  { mode, uid, gid }: { mode: string; uid: number; gid: number },
): Promise<void> {
  const bytes = new TextEncoder().encode(text)
  const transfer = guest.open({
    ...{ op: "writeFile", path, mode, size: bytes.length, parents: true, owner: { uid, gid } },
  })
  await Promise.race([transfer.write(bytes), transfer.result])
  transfer.endInput()
  await transfer.result
}

async function removeFile(guest: Guest, path: string): Promise<void> {
  await guest.ask({ op: "removeFile", path, recursive: false }, deadline)
}
