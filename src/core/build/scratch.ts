/** The image `scratch`: a disk without a file. All builds share it. */

import { pack } from "tar-stream"
import { emptyConfig } from "../../rules/dockerfile/plan.ts"
import type { Image } from "../host.ts"
import { pinDisk } from "../image-disks.ts"
import type { ForBuild } from "./for-build.ts"

export async function emptyRoot(core: ForBuild, signal: AbortSignal): Promise<Image> {
  const archive = pack()
  archive.entry({ name: "./", type: "directory", mode: 0o755, mtime: new Date(0) })
  archive.finalize()
  const bytesMax = 1024 * 1024
  await using received = await core.host.pulls.receive(archive as AsyncIterable<Uint8Array>, { bytesMax })
  const opened = await core.host.pulls.openArchive(received, { origin: "scratch", bytesMax, signal })
  using _pin = pinDisk(core, opened.diskName)
  await core.host.pulls.import(received, { opened, bytesMax, signal, onProgress: () => {} })
  return { ...(await core.host.images.readImage(opened.diskName)), config: emptyConfig }
}
