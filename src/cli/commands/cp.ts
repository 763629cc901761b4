/** `bhatti cp`. */

import { command } from "../command.ts"
import { copyOf } from "../copy/place.ts"
import { exitFailed } from "../exit-codes.ts"
import { ownerOption } from "../file-owner.ts"
import { bytesText, countText } from "../words.ts"
import { WrongUsage } from "../wrong-usage.ts"

export const cp = command({
  rest: { name: "path", kind: "names", least: 2, usage: "SOURCE... TARGET" },
  description: `Copies files and directories in either direction. SANDBOX:PATH names a file in a sandbox; a relative PATH begins at /workspace.
A local name with a colon is written ./a:b. - is standard input or output; a directory is a tar stream then.

Directories are copied recursively, like cp -r: into TARGET if that is a directory or ends in /, otherwise under TARGET's name. DIR/.
copies the contents of DIR. Permissions are copied, owners and set-user-id bits are not. A file replaces the old one only when it is
complete, so an interrupted copy leaves the old one. Sparse files stay sparse. A copy from a sandbox never writes outside the target, and leaves out links that
lead out of the copied directory: a program that wrote through one would write where the sandbox wants. Sockets, pipes and devices are
left out too. If anything is left out, the rest is copied, a message lists it, and the exit code is 1.`,
  options: {
    recursive: {
      type: "flag",
      short: "r",
      otherShort: "R",
      summary: "Accepted for compatibility with cp; directories are always copied recursively",
    },
    ...ownerOption,
  },
  refuse: ({ rest, options }) => {
    const copy = copyOf(rest)
    if ("refusal" in copy) return copy.refusal
    const isOwnerMeaningless = options.owner !== undefined && copy.kind === "download"
    return isOwnerMeaningless ? "--owner is for copies into a sandbox" : undefined
  },
  examples: [
    "bhatti cp ./site dev:/workspace/",
    "bhatti cp ./nginx.conf dev:/etc/nginx/ --owner root",
    "bhatti cp dev:/workspace/build ./out",
    "bhatti cp dev:app.log - | tail",
    "tar c . | bhatti cp - dev:/tmp/all.tar",
  ],
  async run({ client, rest, options, isJson, out }) {
    const copy = copyOf(rest)
    if ("refusal" in copy) throw new WrongUsage(copy.refusal)
    const { guardTransfer } = await import("../copy/interruption.ts")
    const words = "no file was replaced by an incomplete one"
    return await guardTransfer({ out, words }, async (signal) => {
      const context = { client, out, signal, owner: options.owner }
      const copied =
        copy.kind === "upload"
          ? await (await import("../copy/upload.ts")).upload(copy.sources, copy.target, context)
          : await (await import("../copy/download.ts")).download(copy.sources, copy.target, context)
      const { entries, bytes, skipped } = copied
      if (copy.target.kind === "standard") return skipped === 0 ? 0 : exitFailed
      if (isJson) await out.json({ status: skipped === 0 ? "ok" : "incomplete", ...copied })
      else {
        const left = skipped === 0 ? "" : `; ${skipped} left out`
        await out.result(`${countText(entries, "item")} copied, ${bytesText(bytes)}${left}`)
      }
      return skipped === 0 ? 0 : exitFailed
    })
  },
})
