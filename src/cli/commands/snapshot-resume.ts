/** `bhatti snapshot resume`. */

import { limits } from "@bhatti/contract/limits"
import { createOrRollBack } from "../cancel-create.ts"
import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { noticeIfSlow } from "../slow-notice.ts"
import { cpusText, secondsText, sizeText } from "../words.ts"

export const snapshotResume = command({
  args: ["snapshot"],
  description: `Makes a new sandbox, as often as you like: memory and programs continue from the snapshot, with a host name, machine id and random
numbers of their own. Size, image, environment and labels are the source's; secrets are only those given with --secret.

If this host cannot load the memory any more, for example after an update of QEMU, the sandbox boots from the snapshot's disk and a message says so.`,
  options: {
    name: {
      type: "text",
      short: "n",
      value: "NAME",
      summary: `Name of the sandbox: ${limits.sandboxNameRule}`,
      fallback: "generated",
    },
    quiet: quietOption,
    secret: {
      type: "list",
      value: "NAME",
      summary: "Secret to pass as an environment variable; may be repeated",
    },
  },
  examples: [
    "bhatti snapshot resume before-upgrade",
    "bhatti snapshot resume before-upgrade --name second-try",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    using _notice = noticeIfSlow(out, () => `copying the disk of ${args.snapshot}`)
    const made = await createOrRollBack({ client, out }, async (signal) => ({
      sandboxes: [
        await client.resumeSnapshot({
          params: { name: args.snapshot },
          body: { name: options.name, ...(options.secret.length > 0 && { secrets: options.secret }) },
          signal,
        }),
      ],
      isNew: true,
    }))
    if ("exitCode" in made) return made.exitCode
    const [sandbox] = made.sandboxes
    if (sandbox === undefined) return
    if (isJson) return await out.json(sandbox)
    if (sandbox.status_reason !== null)
      await out.talk(`its memory is lost, it booted from its disk: ${sandbox.status_reason}`)
    if (options.quiet) return await printNames(out, made.sandboxes)
    const size = `${cpusText(sandbox.cpus)}, ${sizeText(sandbox.memory_mb)}`
    await out.result(
      `sandbox/${sandbox.name} resumed (${size}) in ${secondsText(performance.now() - startMs)}`,
    )
  },
})
