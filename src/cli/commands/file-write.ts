/** `bhatti file write`. */

import { limits } from "@bhatti/contract/limits"
import { command } from "../command.ts"
import { isFileMode, modeRule } from "../file-mode.ts"
import { ownerOption } from "../file-owner.ts"
import { tellingFate } from "../lost-sandbox.ts"
import { bytesText, printable } from "../words.ts"

export const fileWrite = command({
  args: ["sandbox", "path"],
  optionalArgs: ["file"],
  description: `Writes standard input, or the local FILE, to PATH as a whole: readers see the old file or the new one, and an interrupted
write leaves the old one. Missing directories are made. At most ${limits.fileBytesMax / 1024 / 1024} MB; bhatti cp copies more.`,
  options: {
    mode: {
      type: "text",
      short: "m",
      value: "MODE",
      summary: "Permissions, in octal",
      fallback: "the replaced file's, FILE's, or 0644",
    },
    ...ownerOption,
  },
  refuse: ({ options }) => (isFileMode(options.mode) ? undefined : modeRule),
  examples: [
    "echo 'console.log(\"hello\")' | bhatti file write dev /workspace/app.js",
    "bhatti file write dev /usr/local/bin/run ./run.sh --mode 0755 --owner root",
  ],
  async run({ client, args, options, isJson, out }) {
    const [{ guardTransfer }, { uploadFile, uploadInput }] = await Promise.all([
      import("../copy/interruption.ts"),
      import("../copy/upload.ts"),
    ])
    const words = `${args.sandbox}:${printable(args.path)} is as it was`
    return await guardTransfer({ out, words }, async (signal) => {
      const place = { sandbox: args.sandbox, path: args.path }
      const context = { client, out, signal, owner: options.owner }
      const { bytes } = await tellingFate(
        args.sandbox,
        { client, during: "during the transfer" },
        async () =>
          args.file === undefined || args.file === "-"
            ? await uploadInput(place, { isInto: false, mode: options.mode }, context)
            : await uploadFile(args.file, place, { mode: options.mode }, context),
      )
      if (isJson) await out.json({ status: "ok" })
      else await out.result(`${args.sandbox}:${args.path} written, ${bytesText(bytes)}`)
      return 0
    })
  },
})
