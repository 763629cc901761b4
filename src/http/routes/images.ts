/** Handlers of images. */

import { BuildImage } from "@bhatti/contract/image"
import { parseInput } from "@bhatti/contract/wording"
import { buildImage } from "../../core/build/build-image.ts"
import { pruneBuildCache } from "../../core/build/cache.ts"
import { deleteImage, pruneImages, tagImage } from "../../core/change-images.ts"
import { exportImage, pushImage } from "../../core/export-image.ts"
import { installHostImage, listHostImages } from "../../core/host-images.ts"
import { describeImage, listImages } from "../../core/images.ts"
import { importImage } from "../../core/import-image.ts"
import { pullImage } from "../../core/pull.ts"
import { saveImage } from "../../core/save-image.ts"
import { parseStrictJson } from "../../lib/strict-json.ts"
import { bytesReply } from "../bytes.ts"
import type { Handlers } from "../context.ts"
import { firstLineOf } from "../first-line.ts"
import { credentialFrom, viewHostImages, viewImage, viewImages } from "../views/image.ts"
import { viewStarted } from "../views/task.ts"

export const images = {
  async listImages({ core, account }) {
    return viewImages(await listImages(core, account), account)
  },

  async pullImage({ core, account }, { body }) {
    const { ref: reference, auth, ...input } = body
    const pulled = await pullImage(core, account, { ...input, reference, credential: credentialFrom(auth) })
    if ("task" in pulled) return Response.json(viewStarted(pulled.task), { status: 202 })
    const { name: image, manifestDigest: digest } = pulled.image
    return Response.json({ task_id: null, status: "exists", image, ...(digest !== null && { digest }) })
  },

  async importImage({ core, account, body }, { query }) {
    const { name, prepare } = query
    const task = await importImage(core, account, { name, prepare: prepare !== "false", bytes: body })
    return viewStarted(task)
  },

  async saveImage({ core, account, params }, { body }) {
    return viewStarted(await saveImage(core, account, params.id, body))
  },

  async listHostImages({ core }) {
    return viewHostImages(await listHostImages(core))
  },

  async installHostImage({ core, account, params }) {
    const { task } = await installHostImage(core, account, params.name)
    if (task) return Response.json(viewStarted(task), { status: 202 })
    return Response.json({ task_id: null, status: "exists", image: params.name })
  },

  async buildImage({ core, account, body }) {
    const { first, rest } = await firstLineOf(body)
    const { memory_mb: memoryMib, no_cache, ...asked } = parseInput(BuildImage, parseStrictJson(first))
    const input = { ...asked, memoryMib, usesCache: !no_cache, context: rest }
    return viewStarted(await buildImage(core, account, input))
  },

  async exportImage({ core, account, params, revoked }) {
    const left = new AbortController()
    const signal = AbortSignal.any([revoked, left.signal])
    const output = await exportImage(core, account, params.name, signal)
    const source = { output, result: Promise.resolve(), close: () => left.abort() }
    return bytesReply(source, { headers: { "content-type": "application/x-tar" }, revoked, log: core.log })
  },

  async pushImage({ core, account, params }, { body }) {
    const { ref: reference, auth } = body
    const input = { reference, credential: credentialFrom(auth) }
    return viewStarted(await pushImage(core, account, params.name, input))
  },

  async pruneImages({ core, account }) {
    // Its disks hold templates of the images.
    const freed = await pruneBuildCache(core, account)
    const removed = await pruneImages(core, account)
    const bytes = removed.reduce((sum, image) => sum + image.bytes, freed)
    return { deleted: removed.map(({ name }) => name), freed_mb: Math.round(bytes / 1024 / 1024) }
  },

  async getImage({ core, account, params }) {
    const [image] = viewImages(await describeImage(core, account, params.name), account)
    if (!image) throw new Error("an image that was found is gone")
    return image
  },

  async tagImage({ core, account, params }, { body }) {
    return viewImage(await tagImage(core, account, params.name, body.name), account)
  },

  async deleteImage({ core, account, params }) {
    await deleteImage(core, account, params.name)
    return { status: "deleted" }
  },
} satisfies Partial<Handlers>
