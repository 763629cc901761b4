/** Publishes ports: checks the owner's rights and the alias, and builds the URL. */

import { AppError } from "@bhatti/contract/errors"
import { checkPublished } from "../rules/input.ts"
import type { PublishedPortRecord } from "../store/published-ports.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { Core } from "./core.ts"
import { withFailure } from "./failures.ts"
import { findSandbox } from "./find.ts"
import { portOfImage } from "./image-program.ts"

export type Published = PublishedPortRecord & { url: string }

const suffixLetters = "abcdefghijkmnpqrstuvwxyz23456789"
/** 32^10 suffixes: generated URLs cannot be guessed. */
const suffixLength = 10
const aliasLengthMax = 63

/** Without an alias, the port keeps its current one or gets an unguessable one. */
export async function publishPort(
  core: Pick<Core, "events" | "settings" | "store">,
  account: Account,
  nameOrId: string,
  input: { port?: number | undefined; alias?: string | undefined },
): Promise<{ published: Published; isNew: boolean }> {
  checkPublished(input)
  const record = await findSandbox(core, account, nameOrId)
  const { publishedPorts } = core.store
  const { port = portOfImage(record), alias } = input
  const failure = { type: "publish.create_failed", sandbox: record, meta: { port } } as const
  const { record: added, isNew } = await withFailure(core, failure, () =>
    alias === undefined
      ? publishedPorts.addFirst({ sandboxId: record.id, port, alias: unguessableAlias(record) })
      : publishedPorts.add({ sandboxId: record.id, port, alias }),
  )
  if (isNew) {
    const meta = { by: "user", port: added.port, alias: added.alias }
    core.events.record({ type: "publish.created", userId: account.id, sandbox: record, meta })
  }
  return { published: withUrl(core, added), isNew }
}

export async function listPublished(
  core: Pick<Core, "settings" | "store">,
  account: Account,
  nameOrId: string,
): Promise<Published[]> {
  const record = await findSandbox(core, account, nameOrId)
  return (await core.store.publishedPorts.listOf([record.id])).map((one) => withUrl(core, one))
}

/** Removes the given alias of the port, or all of them without one. */
export async function unpublishPort(
  core: Pick<Core, "events" | "onUnpublished" | "store">,
  account: Account,
  nameOrId: string,
  { port, alias }: { port: number; alias?: string | undefined },
): Promise<void> {
  const record = await findSandbox(core, account, nameOrId)
  const failure = { type: "publish.delete_failed", sandbox: record, meta: { port } } as const
  const removed = await withFailure(core, failure, () =>
    core.store.publishedPorts.remove(record.id, port, alias),
  )
  if (removed.length === 0) {
    const what = alias === undefined ? "" : ` as "${alias}"`
    throw new AppError("not_found", `port ${port} of "${record.name}" is not published${what}`, {
      subject: { kind: "published_port", sandbox: record.name },
    })
  }
  for (const one of removed) {
    for (const listener of core.onUnpublished) listener(one.alias)
    const meta = { by: "user", port, alias: one.alias }
    core.events.record({ type: "publish.deleted", userId: account.id, sandbox: record, meta })
  }
}

export function urlOf(core: Pick<Core, "settings">, alias: string): string {
  const { scheme, domain, port } = core.settings.publicAddress
  const isDefault = port === (scheme === "https" ? 443 : 80)
  return `${scheme}://${alias}.${domain}${isDefault ? "" : `:${port}`}/`
}

function withUrl(core: Pick<Core, "settings">, record: PublishedPortRecord): Published {
  return { ...record, url: urlOf(core, record.alias) }
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
