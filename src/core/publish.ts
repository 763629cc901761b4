/** Publishing ports: who may, under which alias, and what the URL is. */

import { AppError } from "../contract/errors.ts"
import type { PublishedPort } from "../contract/publish.ts"
import type { PublishedPortRecord } from "../store/published-ports.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { findSandbox } from "./find.ts"

const suffixLetters = "abcdefghijkmnpqrstuvwxyz23456789"
/** 32^10: nobody guesses a URL that was made for them. */
const suffixLength = 10
const aliasLengthMax = 63

export async function publishPort(
  core: Core,
  account: Account,
  nameOrId: string,
  input: { port: number; alias?: string | undefined },
): Promise<{ published: PublishedPort; isNew: boolean }> {
  const record = await findSandbox(core, account, nameOrId)
  const existing = await core.store.publishedPorts.find(record.id, input.port)
  if (existing) {
    const published = viewPublished(core, existing)
    if (input.alias === undefined || input.alias === existing.alias) return { published, isNew: false }
    throw new AppError("conflict", `port ${input.port} is published already, as ${published.url}`, {
      hint: `bhatti unpublish ${record.name} -p ${input.port}`,
    })
  }
  const alias = input.alias ?? unguessableAlias(record)
  const added = await core.store.publishedPorts.add({ sandboxId: record.id, port: input.port, alias })
  const meta = { by: "user", port: input.port, alias }
  core.events.record({ type: "publish.created", userId: account.id, sandbox: record, meta })
  return { published: viewPublished(core, added), isNew: true }
}

export async function listPublished(
  core: Core,
  account: Account,
  nameOrId: string,
): Promise<PublishedPort[]> {
  const record = await findSandbox(core, account, nameOrId)
  return (await core.store.publishedPorts.listOf([record.id])).map((one) => viewPublished(core, one))
}

export async function unpublishPort(
  core: Core,
  account: Account,
  nameOrId: string,
  port: number,
): Promise<void> {
  const record = await findSandbox(core, account, nameOrId)
  const existing = await core.store.publishedPorts.find(record.id, port)
  if (!existing || !(await core.store.publishedPorts.remove(record.id, port))) {
    throw new AppError("not_found", `port ${port} of "${record.name}" is not published`, {
      hint: `bhatti publish ${record.name} --list`,
    })
  }
  core.onUnpublished(existing.alias)
  const meta = { by: "user", port, alias: existing.alias }
  core.events.record({ type: "publish.deleted", userId: account.id, sandbox: record, meta })
}

export function urlOf(core: Core, alias: string): string {
  const { scheme, domain, port } = core.settings.publicAddress
  const isDefault = port === (scheme === "https" ? 443 : 80)
  return `${scheme}://${alias}.${domain}${isDefault ? "" : `:${port}`}/`
}

function viewPublished(core: Core, record: PublishedPortRecord): PublishedPort {
  return {
    id: record.id,
    sandbox_id: record.sandboxId,
    port: record.port,
    alias: record.alias,
    url: urlOf(core, record.alias),
    created_at: record.createdAt,
  }
}

function unguessableAlias(record: SandboxRecord): string {
  const random = crypto.getRandomValues(new Uint8Array(suffixLength))
  const suffix = [...random].map((byte) => suffixLetters[byte % suffixLetters.length]).join("")
  const base = record.name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "")
    .slice(0, aliasLengthMax - suffixLength - 1)
  return `${base === "" ? "sandbox" : base}-${suffix}`
}
