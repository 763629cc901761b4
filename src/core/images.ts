/** Images that an account may use: its own, those shared with it, and those of the host. */

import { AppError } from "@bhatti/contract/errors"
import { isDiskName } from "../lib/disk-names.ts"
import { suggest } from "../lib/suggest.ts"
import type { ImageRecord } from "../store/images.ts"
import type { Account } from "../store/users.ts"
import type { Core, OnHost } from "./core.ts"
import type { InstalledImage } from "./host.ts"

/** An image found for an account: its name among the host's files, and its row; null: an image of the host. */
export type FoundImage = { diskName: string; record: ImageRecord | null }

/** Images of the host, and those of users. */
export type ListedImages = { ofHost: InstalledImage[]; ofUsers: ImageRecord[] }

/** Names in a hint. */
const namedMax = 10

type Parts = Pick<Core, "store"> & OnHost<"images">

export async function listImages(core: Parts, account: Account): Promise<ListedImages> {
  const [installed, ofUsers] = await Promise.all([
    core.host.images.list(),
    core.store.images.listUsable(account.id),
  ])
  return { ofHost: installed.filter(({ name }) => !isDiskName(name)), ofUsers }
}

/** The image alone. */
export async function describeImage(core: Parts, account: Account, nameOrId: string): Promise<ListedImages> {
  const { record, diskName } = await findImage(core, account, nameOrId)
  if (record) return { ofHost: [], ofUsers: [record] }
  const ofHost = (await core.host.images.list()).filter(({ name }) => name === diskName)
  if (ofHost.length === 0) throw await noImage(core, account, nameOrId)
  return { ofHost, ofUsers: [] }
}

/** An account's own image of that name comes before the host's, so that a new one of the host changes nobody's. */
export async function findImage(core: Parts, account: Account, nameOrId: string): Promise<FoundImage> {
  const record = await core.store.images.findUsable(account.id, nameOrId)
  if (record) return { diskName: record.diskName, record }
  const latest = await findLatest(core, account, nameOrId)
  if (latest) return { diskName: latest.diskName, record: latest }
  if (isDiskName(nameOrId) || /[:/@]/.test(nameOrId)) {
    const error = await noImage(core, account, nameOrId)
    throw error.hint === undefined ? await withOwnImages(core, account, { error, name: nameOrId }) : error
  }
  return { diskName: nameOrId, record: null }
}

/** A reference without a tag means `latest`, as in a pull, unless the host has an image of that name. */
async function findLatest(core: Parts, account: Account, name: string): Promise<ImageRecord | undefined> {
  if (/[:@][^/]*$/.test(name)) return undefined
  const record = await core.store.images.findUsable(account.id, `${name}:latest`)
  const isHosts = record && (await core.host.images.list()).some((image) => image.name === name)
  return isHosts ? undefined : record
}

/** An image that the account may change. */
export async function findOwnImage(core: Parts, account: Account, nameOrId: string): Promise<ImageRecord> {
  const record = await core.store.images.findUsable(account.id, nameOrId)
  if (record?.userId === account.id) return record
  if (record)
    throw new AppError("forbidden", `image "${nameOrId}" is shared with you and belongs to another user`, {
      subject: { kind: "image", name: nameOrId },
    })
  const ofHost = (await core.host.images.list()).some(({ name }) => name === nameOrId && !isDiskName(name))
  if (ofHost)
    throw new AppError("forbidden", `image "${nameOrId}" belongs to the host`, {
      hint: "its operator installs and removes it",
      subject: { kind: "image", name: nameOrId },
    })
  throw await noImage(core, account, nameOrId)
}

export async function noImage(core: Parts, account: Account, nameOrId: string): Promise<AppError> {
  const names = namesOf(await listImages(core, account))
  const similar = suggest(nameOrId, names)
  return new AppError("not_found", `no image named "${nameOrId}"`, {
    hint: similar && `did you mean ${similar}?`,
    subject: { kind: "image", name: nameOrId },
  })
}

/** For an error that a missing image leads to: names those of the account too, which the host does not know. */
export async function withOwnImages(
  core: Parts,
  account: Account,
  { error, name }: { error: unknown; name: string },
): Promise<unknown> {
  if (!(error instanceof AppError) || error.code !== "not_found") return error
  const { ofHost, ofUsers } = await listImages(core, account)
  if (ofUsers.length === 0 || ofHost.some((image) => image.name === name)) return error
  return error.but({ hint: hintOf(namesOf({ ofHost, ofUsers })) })
}

/** Own ones first. */
function namesOf({ ofHost, ofUsers }: ListedImages): string[] {
  return [...ofUsers, ...ofHost].map(({ name }) => name)
}

function hintOf(names: readonly string[]): string {
  const more = names.length - namedMax
  return `images that you can use: ${names.slice(0, namedMax).join(", ")}${more > 0 ? `, and ${more} more` : ""}`
}
