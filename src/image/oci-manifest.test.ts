/** Manifests and configurations of strangers: whole ones are read, each other kind is refused with its reason. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtemp, rm, symlink, truncate } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import {
  blobPath,
  digestOf,
  type LayeredImageOptions,
  writeBlob,
  writeImage,
} from "../../test/support/oci-layout.ts"
import { readLayeredImage } from "./oci-manifest.ts"
import { unpackImage } from "./unpack.ts"

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bhatti-oci-"))
})
afterAll(() => rm(directory, { recursive: true, force: true }))

const layer = Buffer.alloc(1024)

async function reasonOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work
    return undefined
  } catch (error) {
    return error instanceof AppError ? error.reason : error
  }
}

async function reasonFor(options: LayeredImageOptions, layers = [layer]): Promise<unknown> {
  const layout = await mkdtemp(join(directory, "layout-"))
  return reasonOf(readLayeredImage(layout, await writeImage(layout, layers, options)))
}

test("a whole image is read with its layers and its configuration", async () => {
  const layout = await mkdtemp(join(directory, "layout-"))
  const digest = await writeImage(layout, [layer, Buffer.alloc(2048)], {
    compression: "gzip",
    config: {
      config: {
        User: "1001:0",
        WorkingDir: "/app",
        Env: ["PATH=/bin", "A=b=c", "NOTHING"],
        Entrypoint: null,
        Cmd: ["serve", "-v"],
        ExposedPorts: { "80/tcp": {}, "53/udp": {}, "9000-9002": {} },
        Labels: null,
      },
    },
  })
  const image = await readLayeredImage(layout, digest)
  expect(image.layers.map(({ diffId, compression }) => ({ diffId, compression }))).toEqual([
    { diffId: digestOf(layer), compression: "gzip" },
    { diffId: digestOf(Buffer.alloc(2048)), compression: "gzip" },
  ])
  expect(image.config).toEqual({
    user: "1001:0",
    workdir: "/app",
    env: { PATH: "/bin", A: "b=c" },
    entrypoint: [],
    cmd: ["serve", "-v"],
    ports: [80, 9000, 9001, 9002],
    labels: {},
  })
})

const refused: Record<string, LayeredImageOptions> = {
  schema_1: { manifest: () => ({ schemaVersion: 1, fsLayers: [] }) },
  nested_index: { manifest: () => ({ schemaVersion: 2, manifests: [] }) },
  foreign_layer: {
    manifest: (manifest) => ({
      ...manifest,
      layers: manifest.layers.map((one) => ({
        ...one,
        mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
      })),
    }),
  },
  bad_media_type: {
    manifest: (manifest) => ({
      ...manifest,
      layers: manifest.layers.map((one) => ({
        ...one,
        mediaType: "application/vnd.oci.image.layer.v1.tar+xz",
      })),
    }),
  },
  not_an_image: {
    manifest: (manifest) => ({
      ...manifest,
      config: { ...(manifest["config"] as object), mediaType: "application/vnd.cncf.helm.config.v1+json" },
    }),
  },
  bad_digest: {
    manifest: (manifest) => ({
      ...manifest,
      layers: manifest.layers.map((one) => ({ ...one, digest: "sha256:../../../etc/passwd" })),
    }),
  },
  wrong_size: {
    manifest: (manifest) => ({ ...manifest, config: { ...(manifest["config"] as object), size: 3 } }),
  },
  bad_manifest: { diffIds: [] },
  wrong_platform: { config: { architecture: "arm64", variant: "v8" } },
  bad_config: { config: { config: { Env: ["A=\0"] } } },
  too_many_layers: {
    manifest: (manifest) => ({ ...manifest, layers: Array(600).fill(manifest.layers[0]) }),
  },
}
for (const [reason, options] of Object.entries(refused)) {
  test(`an image is refused with the reason ${reason}`, async () => {
    expect(await reasonFor(options)).toBe(reason)
  })
}

test("a document whose bytes changed, which is missing, or which is a link is refused", async () => {
  const layout = await mkdtemp(join(directory, "layout-"))
  const digest = await writeImage(layout, [layer])
  const path = blobPath(layout, digest)
  await truncate(path, 40)
  expect(await reasonOf(readLayeredImage(layout, digest))).toBe("wrong_digest")
  await rm(path)
  expect(await reasonOf(readLayeredImage(layout, digest))).toBe("missing_blob")
  await symlink("/etc/passwd", path)
  expect(await reasonOf(readLayeredImage(layout, digest))).toBe("missing_blob")
})

test("a document that is no JSON, and one longer than any manifest, are refused", async () => {
  const text = await writeBlob(directory, Buffer.from("<html>"))
  expect(await reasonOf(readLayeredImage(directory, text.digest))).toBe("bad_manifest")
  const long = await writeBlob(directory, Buffer.alloc(5 * 1024 * 1024))
  expect(await reasonOf(readLayeredImage(directory, long.digest))).toBe("too_many_bytes")
})

test("an image with more compressed bytes than the limit is refused before any is read", async () => {
  const layout = await mkdtemp(join(directory, "layout-"))
  const manifestDigest = await writeImage(layout, [layer])
  const work = unpackImage({ layout, manifestDigest, directory, uid: 0, limits: { compressedBytes: 100 } })
  expect(await reasonOf(work)).toBe("too_many_bytes")
})
