/**
 * Asks a registry for a reference: which manifest it is on this platform, with each document checked against its
 * digest before it is believed.
 */

import { createHash } from "node:crypto"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { parseJson } from "../../lib/parse-json.ts"
import { hexOf } from "../oci-manifest.ts"
import { refusal } from "../refusal.ts"

const indexTypes = new Set([
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
])

const Index = z.object({
  manifests: z.array(
    z.object({
      digest: z.string(),
      platform: z
        .object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
        .optional(),
    }),
  ),
})
const Document = z.object({ mediaType: z.string().optional(), manifests: z.unknown().optional() })
const Sizes = z.object({
  config: z.object({ digest: z.string(), size: z.int().nonnegative() }),
  layers: z.array(z.object({ digest: z.string(), size: z.int().nonnegative() })),
})

export type Resolved = {
  /** The digest of the document that the reference names. */
  indexDigest: string
  manifestDigest: string
  /** The manifest as the registry has it. */
  manifest: Buffer
  layers: { digest: string; size: number }[]
  configDigest: string
}

/** `fetch` returns the document of the tag, if it is given none of a digest. */
export async function resolve(
  fetch: (digest: string | null) => Promise<Buffer>,
  options: { pinned: string | null; platform: string },
): Promise<Resolved> {
  const { pinned, platform } = options
  const first = await fetch(pinned)
  const indexDigest = digestOf(first)
  if (pinned !== null) checkDigest(first, pinned)
  const about = Document.safeParse(parseJson(first.toString("utf8"))).data
  const isIndex =
    about !== undefined && (indexTypes.has(about.mediaType ?? "") || about.manifests !== undefined)
  const manifestDigest = isIndex ? choose(first, platform) : indexDigest
  const manifest = isIndex ? await fetch(manifestDigest) : first
  checkDigest(manifest, manifestDigest)
  const sizes = Sizes.safeParse(parseJson(manifest.toString("utf8"))).data
  for (const { digest } of sizes?.layers ?? []) hexOf(digest)
  return {
    indexDigest,
    manifestDigest,
    manifest,
    // The reader of layouts refuses a document without them, with a reason.
    layers: sizes?.layers ?? [],
    configDigest: sizes?.config.digest ?? "",
  }
}

/** Attestations have the platform `unknown/unknown`. */
function choose(bytes: Buffer, platform: string): string {
  const index = Index.safeParse(parseJson(bytes.toString("utf8"))).data
  if (index === undefined) throw refusal("bad_manifest", "the image's list of platforms cannot be read")
  const named = index.manifests.map(({ digest, platform: its }) => ({
    digest,
    name: its ? `${its.os}/${its.architecture}` : "unknown/unknown",
    hasVariant: its?.variant !== undefined,
  }))
  const fitting = named.filter(({ name }) => name === platform)
  const found = fitting.find(({ hasVariant }) => !hasVariant) ?? fitting[0]
  if (found) {
    hexOf(found.digest)
    return found.digest
  }
  const there = [...new Set(named.map(({ name }) => name))].filter((name) => name !== "unknown/unknown")
  throw new AppError("invalid", `the image is not made for ${platform}`, {
    hint: there.length > 0 ? `it is there for: ${there.join(", ")}` : "it names no platform",
    reason: "wrong_platform",
  })
}

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`
}

function checkDigest(bytes: Buffer, digest: string): void {
  if (digestOf(bytes) === digest) return
  throw refusal("wrong_digest", `the registry's document has another digest than ${digest}`)
}
