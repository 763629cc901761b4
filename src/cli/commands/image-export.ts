/** `bhatti image export`. */

import { AppError } from "@bhatti/contract/errors"
import { command } from "../command.ts"
import { isTerminal } from "../output.ts"
import { bytesText } from "../words.ts"

export const imageExport = command({
  args: ["image"],
  description: `Writes an image as an archive that docker load, podman load and skopeo read, and bhatti image import: one layer with the image's whole
tree, not compressed, and its configuration. Owners, extended attributes, file capabilities, access lists, hard links and devices are kept.

With -o a file is written; it appears when it is complete. -o - is standard output, the default where that is no terminal.`,
  options: {
    output: { type: "text", short: "o", value: "FILE", summary: "The file to write; - is standard output" },
  },
  examples: [
    "bhatti image export app:1 -o app.tar",
    "bhatti image export app:1 | docker load",
    "bhatti image export app:1 -o - | zstd > app.tar.zst",
  ],
  async run({ client, args, options, isJson, out }) {
    const { output = "-" } = options
    if (output === "-" && (await isTerminal(1)))
      throw new AppError("invalid", "an archive does not belong on a terminal", {
        hint: `bhatti image export ${args.image} -o FILE`,
      })
    const { guardTransfer } = await import("../copy/interruption.ts")
    const { copyToOutput, received } = await import("../copy/download.ts")
    return await guardTransfer({ out, words: "no file was written" }, async (signal) => {
      const response = await client.exportImage({ params: { name: args.image }, signal })
      if (output === "-") {
        await copyToOutput(response, out)
        return 0
      }
      const { placeFile } = await import("../copy/local-file.ts")
      const { Progress } = await import("../copy/progress.ts")
      await using progress = new Progress(out, { label: args.image })
      let bytes = 0
      const count = (more: number) => {
        bytes += more
        progress.count(more)
      }
      await placeFile(output, received(response, count), { mode: 0o644 })
      if (isJson) await out.json({ image: args.image, file: output, bytes })
      else await out.result(`image/${args.image} exported to ${output}, ${bytesText(bytes)}`)
      return 0
    })
  },
})
