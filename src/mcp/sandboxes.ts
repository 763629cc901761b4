/** The tools `create`, `list`, `snapshot`, `publish` and `destroy`. */

import { AppError } from "@bhatti/contract/errors"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Call } from "./call.ts"
import type { CreateInput, DestroyInput, ListInput, PublishInput, SnapshotInput } from "./tool-inputs.ts"

/** A listing has at most so many lines. */
const linesMax = 200

export async function create({ client, signal }: Call, input: CreateInput): Promise<string> {
  const { ttl_sec: ttl, ...body } = input
  const made = await client.createSandbox({ body: { ...body, ttl }, signal })
  return `created ${sandboxLine(made)}`
}

export async function list({ client, signal }: Call, { sandbox }: ListInput): Promise<string> {
  if (sandbox !== undefined) {
    const params = { id: sandbox }
    const found = await client.getSandbox({ params, signal })
    const { reason } = await client.whySandbox({ params, signal })
    return JSON.stringify({ ...detailsOf(found), why: reason }, null, 1)
  }
  const all = await client.listSandboxes({ signal })
  if (all.length === 0) return "there are no sandboxes; the tool create makes one"
  return listing(all.map(sandboxLine))
}

export async function snapshot({ client, signal }: Call, input: SnapshotInput): Promise<string> {
  const { action, name, sandbox } = input
  if (action === "list") {
    const all = await client.listSnapshots({ signal })
    if (all.length === 0) return "there are no snapshots"
    return listing(
      all.map((one) => `${one.name}: of ${one.source_sandbox}, ${one.created_at}, ${one.status}`),
    )
  }
  if (name === undefined) throw new AppError("invalid", `action ${action} needs name`)
  if (action === "delete") {
    await client.deleteSnapshot({ params: { name }, signal })
    return `deleted snapshot ${name}`
  }
  if (action === "resume") {
    const body = sandbox === undefined ? {} : { name: sandbox }
    return `created ${sandboxLine(await client.resumeSnapshot({ params: { name }, body, signal }))}`
  }
  if (sandbox === undefined) throw new AppError("invalid", "action create needs sandbox")
  await client.checkpointSandbox({ params: { id: sandbox }, body: { name }, signal })
  return `made snapshot ${name} of ${sandbox}, which runs on`
}

export async function publish({ client, signal }: Call, input: PublishInput): Promise<string> {
  const { sandbox, ...body } = input
  const { url, port } = await client.publishPort({ params: { id: sandbox }, body, signal })
  return `port ${port} of ${sandbox}: ${url}\nAnyone who knows the URL can use it.`
}

export async function destroy({ client, signal }: Call, { sandbox }: DestroyInput): Promise<string> {
  await client.destroySandbox({ params: { id: sandbox }, signal })
  return `destroyed ${sandbox}`
}

function sandboxLine({ name, id, status, thermal, image, cpus, memory_mb, urls }: Sandbox): string {
  const state = thermal === "warm" ? "paused" : status
  const where = urls.length === 0 ? "" : `, ${urls.join(" ")}`
  return `${name} (${id}): ${state}, image ${image}, ${cpus} CPU, ${memory_mb} MiB${where}`
}

function detailsOf(sandbox: Sandbox): Record<string, unknown> {
  const { name, id, status, thermal, image, cpus, memory_mb, disk_size_mb, ip, urls, ends_at } = sandbox
  const shown = { name, id, status, thermal, image, cpus, memory_mb, disk_size_mb, ip, urls, ends_at }
  return { ...shown, on_ttl: sandbox.on_ttl, labels: sandbox.labels, description: sandbox.description }
}

function listing(lines: readonly string[]): string {
  const left = lines.length - linesMax
  return [...lines.slice(0, linesMax), ...(left > 0 ? [`and ${left} more`] : [])].join("\n")
}
