/** Sends an image to a registry with skopeo, confined as a fetch is. The layer is compressed on its way. */

import { chmod, chown, lstat, mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { LayerDocuments } from "../layer-documents.ts"
import { findSkopeo, runConfined } from "./confined.ts"
import { confinedOf, type FetchSettings, globalFlags, ownOf, type Source, textOf } from "./fetch.ts"
import { blobPath, layoutTag, textsOf } from "./image-archive.ts"
import { type LayerState, watchPush } from "./progress.ts"
import { makeStaging, makeWork } from "./staging.ts"
import { errorOf } from "./words.ts"

type Layer = { file: string; digest: string; size: number }

/** Returns the digest that the image has in the registry. Takes the layer's file. */
export async function pushLayer(
  settings: FetchSettings,
  to: Source,
  { layer, documents }: { layer: Layer; documents: LayerDocuments },
  { onProgress, signal }: { onProgress: (layers: LayerState[]) => void; signal: AbortSignal },
): Promise<string> {
  const own = ownOf(settings, to)
  await using staging = await makeStaging(settings.dataDir)
  await using admission = await settings.admit(own, to.owner, signal)
  const work = await makeWork(staging.path, admission.uid)
  await layOut(join(work, "image"), { layer, documents, uid: admission.uid })
  const flags = [
    ...(own?.isInsecure ? ["--dest-tls-verify=false"] : []),
    ...(own?.caFile === undefined ? [] : ["--dest-cert-dir", "/certs"]),
  ]
  const silent = new AbortController()
  await using _watch = watchPush({
    uid: admission.uid,
    layer,
    ...{ host: to.host, stallMs: settings.stallMs, onProgress },
    onStall: (error) => silent.abort(error),
  })
  const subject = textOf(to, null)
  const ended = await runConfined(
    [
      ...[findSkopeo(), ...globalFlags, "copy", "--quiet", "--dest-authfile", "/auth.json", ...flags],
      ...["--digestfile", "/fetched/digest", `oci:/fetched/image:${layoutTag}`, `docker://${subject}`],
    ],
    confinedOf(to, {
      ...{ own, admission, directory: work, signal: AbortSignal.any([signal, silent.signal]) },
      fileBytesMax: layer.size + 4 * 1024 * 1024,
      deadlineMs: settings.timeoutMs,
    }),
  )
  if (ended.code !== 0) throw errorOf(ended, subject, to.credential, "push")
  return await digestIn(join(work, "digest"))
}

/** Files of others, which the program may only read. */
async function layOut(
  directory: string,
  { layer, documents, uid }: { layer: Layer; documents: LayerDocuments; uid: number },
): Promise<void> {
  await mkdir(join(directory, "blobs", "sha256"), { recursive: true, mode: 0o755 })
  for (const path of [directory, join(directory, "blobs"), join(directory, "blobs", "sha256")])
    await chmod(path, 0o755)
  for (const [name, bytes] of Object.entries(textsOf(layer, documents, null))) {
    await writeFile(join(directory, name), bytes)
    await chmod(join(directory, name), 0o444)
  }
  const file = join(directory, blobPath(layer.digest))
  await rename(layer.file, file)
  await chown(file, uid, uid)
  await chmod(file, 0o400)
}

/** The program has written it, so its text is checked. */
async function digestIn(path: string): Promise<string> {
  const about = await lstat(path)
  const text = about.isFile() && about.size < 200 ? (await readFile(path, "utf8")).trim() : ""
  if (/^sha256:[0-9a-f]{64}$/.test(text)) return text
  throw new Error("the program that pushes has told no digest")
}
