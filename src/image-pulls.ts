/**
 * Puts together what pulls images, and makes layers of disks: the registries' egress, skopeo and the unpacker, as the
 * configuration has it.
 */

import type { Config } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { flattenDisk } from "./disk/flat-disk.ts"
import { BuildContexts } from "./image/build-context.ts"
import type { FetchSettings } from "./image/registry/fetch.ts"
import { Packs } from "./image/registry/packs.ts"
import { Pulls } from "./image/registry/pulls.ts"
import { unpackImage } from "./image/unpack.ts"
import { RegistryEgress } from "./network/registry-egress.ts"

/** The last user ids of the range: machines take the lowest free ones. */
const lastUid = 65_535
const fetchersMax = 4
/** Each user leaves fetchers for others. */
const userFetchersMax = 2
const answerTimeoutMs = 60_000
const stallMs = 120_000
const mebibyte = 1024 * 1024

type Copy = { id: string; isDraft: boolean }

export function openPulls(
  config: Config,
  { isRouted, diskOfCopy }: { isRouted: boolean; diskOfCopy: (copy: Copy) => string },
): { pulls: Pulls; packs: Packs; buildContexts: BuildContexts; close(): void } {
  const uids = Array.from({ length: fetchersMax }, (_, number) => config.uid_base + lastUid - number)
  const egress = new RegistryEgress({
    dataDir: config.data_dir,
    subnet: config.subnet,
    opened: config.allow_internal,
    upstreams: config.dns_upstreams,
    uids,
    ownerMax: userFetchersMax,
  })
  const unpackUid = config.uid_base + lastUid - fetchersMax
  const freeBytes = config.disk_reserve_mb * mebibyte
  const trouble = isRouted ? undefined : notRouted()
  const fetch: FetchSettings = {
    dataDir: config.data_dir,
    registries: config.registries.map(({ host, insecure, ca_file, token_host }) => ({
      host,
      isInsecure: insecure,
      caFile: ca_file,
      tokenHost: token_host,
    })),
    admit: (own, owner, signal) => egress.admit(own, owner, signal),
    timeoutMs: config.pull_timeout * 1000,
    ...{ answerTimeoutMs, stallMs, freeBytes },
  }
  const pulls = new Pulls({
    ...fetch,
    trouble,
    unpack: unpackImage,
    flatten: ({ template, copy }, to, options) =>
      flattenDisk(
        {
          base: template.baseDiskPath,
          differences: [template.diskPath, ...(copy ? [diskOfCopy(copy)] : [])],
        },
        to,
        options,
      ),
    fetchUids: uids,
    unpackUid,
    imageBytesMax: config.image_max_mb * mebibyte,
    layersBytesMax: config.image_layers_mb * mebibyte,
  })
  const packs = new Packs({
    ...{ dataDir: config.data_dir, trouble, fetch },
    filesOf: ({ template, copy }) => [
      ...(copy ? [{ path: diskOfCopy(copy), format: "qcow2" as const }] : []),
      { path: template.diskPath, format: "qcow2" },
      { path: template.baseDiskPath, format: "raw" },
    ],
    uid: unpackUid,
    freeBytes,
  })
  const buildContexts = new BuildContexts({
    dataDir: config.data_dir,
    freeBytes,
  })
  return { pulls, packs, buildContexts, close: () => (isRouted ? egress.close() : undefined) }
}

function notRouted(): AppError {
  return new AppError("unavailable", "this daemon cannot pull images: it may not confine what fetches them", {
    hint: "run it as root, with network: auto or tap in config.yaml",
    subject: { kind: "host" },
    retryable: false,
  })
}
