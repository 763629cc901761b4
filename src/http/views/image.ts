/** An image on the wire. */

import type { HostImage, Image } from "@bhatti/contract/image"
import { limits } from "@bhatti/contract/limits"
import type { InstalledImage } from "../../core/host.ts"
import type { HostImageState } from "../../core/host-images.ts"
import type { ListedImages } from "../../core/images.ts"
import type { ImageRecord } from "../../store/images.ts"
import type { Account } from "../../store/users.ts"

type Auth = { username: string; password: string } | string

/** A text has the form USER:TOKEN. */
export function credentialFrom(auth: Auth | undefined): Exclude<Auth, string> | undefined {
  if (typeof auth !== "string") return auth
  const colon = auth.indexOf(":")
  return { username: auth.slice(0, colon), password: auth.slice(colon + 1) }
}

/** By name. */
export function viewImages({ ofHost, ofUsers }: ListedImages, account: Account): Image[] {
  const all = [...ofHost.map(viewHostImage), ...ofUsers.map((record) => viewImage(record, account))]
  return all.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0))
}

export function viewHostImages(images: readonly HostImageState[]): HostImage[] {
  return images.map(({ name, summary, isInstalled, isInstallable }) => ({
    ...{ name, summary },
    is_installed: isInstalled,
    is_installable: isInstallable,
  }))
}

export function viewHostImage(image: InstalledImage): Image {
  return {
    id: null,
    user_id: "",
    is_own: false,
    name: image.name,
    reference: null,
    index_digest: null,
    manifest_digest: null,
    platform: null,
    status: "ready",
    is_shared: true,
    config: null,
    hash: image.hash,
    is_default: image.name === limits.imageDefault,
    size_mb: image.usedMib,
    disk_size_mb: image.diskMib,
    kernel_version: image.kernelVersion,
    created_at: image.installedAt,
  }
}

export function viewImage(record: ImageRecord, account: Account): Image {
  return {
    id: record.id,
    user_id: record.userId,
    is_own: record.userId === account.id,
    name: record.name,
    reference: record.reference,
    index_digest: record.indexDigest,
    manifest_digest: record.manifestDigest,
    platform: record.platform,
    status: record.state,
    is_shared: record.isShared,
    config: record.config,
    hash: record.diskHash,
    is_default: false,
    size_mb: Math.ceil(record.bytes / 1024 / 1024),
    disk_size_mb: record.diskMib,
    kernel_version: null,
    created_at: record.createdAt,
  }
}
