/** `bhatti image import`. */

import { open } from "node:fs/promises"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../../lib/error-code.ts"
import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { readInput } from "../standard-input.ts"
import { secondsText } from "../words.ts"

export const imageImport = command({
  args: ["file"],
  description: `FILE is an archive of docker save or podman save, an archive of the OCI layout, or a tar archive of a root file system, each
plain or compressed with gzip or zstd; its content decides. - is standard input. An image of yours with that name is replaced.`,
  options: {
    name: { type: "text", short: "n", value: "NAME", summary: "Name of the image", isRequired: true },
    noPrepare: { type: "flag", summary: "Make no template; the first create waits for it" },
    detach: {
      type: "flag",
      short: "d",
      summary: "Print the task's id once the archive is sent, and do not wait",
    },
    quiet: { type: "flag", short: "q", summary: "Print only the name, and no progress" },
  },
  examples: [
    "docker save app | bhatti image import --name app -",
    "bhatti image import --name root rootfs.tar.gz",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const bytes = args.file === "-" ? streamOf(readInput()) : await fileStream(args.file)
    const started = await client.importImage({
      query: { name: options.name, prepare: options.noPrepare ? "false" : "true" },
      bytes,
    })
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    const { image, replaced } = resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(image)
    await out.result(`image/${image} imported in ${secondsText(performance.now() - startMs)}`)
    if (replaced !== undefined)
      await out.talk(
        `it replaces the image ${image} (${replaced.slice(0, 19)}); sandboxes keep the one that they have`,
      )
    await out.hint(`  try: bhatti create --image ${image}`)
  },
})

async function fileStream(path: string): Promise<ReadableStream<Uint8Array>> {
  try {
    await using file = await open(path, "r")
    if ((await file.stat()).isDirectory())
      throw new AppError("invalid", `${path} is a directory`, {
        hint: `tar -C ${path} -c . | bhatti image import --name NAME -`,
      })
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw new AppError("invalid", `cannot read ${path} (${errorCodeOf(cause)})`, { cause })
  }
  return Bun.file(path).stream()
}

function streamOf(source: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await source.next()
      if (done) controller.close()
      else controller.enqueue(value)
    },
  })
}
