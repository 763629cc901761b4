/** `bhatti create`. */

import { limits } from "../../contract/limits.ts"
import { command } from "../command.ts"
import { cpusText, secondsText } from "../words.ts"

export const create = command({
  description: "The sandbox is running when the command returns. Without --name it gets a name of its own.",
  options: {
    name: {
      type: "text",
      value: "NAME",
      summary: `Its name: ${limits.sandboxNameRule}`,
      fallback: "generated",
    },
    cpus: {
      type: "integer",
      value: "N",
      min: 1,
      max: limits.cpusMax,
      summary: "Number of vCPUs",
      fallback: limits.cpusDefault,
    },
    memory: {
      type: "size",
      value: "MB",
      min: limits.memoryMibMin,
      max: limits.memoryMibMax,
      summary: "Memory, in MB or as 1G",
      fallback: limits.memoryMibDefault,
    },
    disk: {
      type: "size",
      value: "MB",
      min: limits.diskMibDefault,
      max: limits.diskMibMax,
      summary: "Size of the root disk, in MB or as 20G; only written blocks use space",
      fallback: limits.diskMibDefault,
    },
    image: { type: "text", value: "IMAGE", summary: "Image to start from", fallback: limits.imageDefault },
    env: {
      type: "pairs",
      short: "e",
      value: "K=V,...",
      summary: "Environment of every command in it; may be repeated",
    },
  },
  examples: [
    "bhatti create --name dev --cpus 2 --memory 1024",
    "bhatti create --name worker --env API_KEY=sk-abc,NODE_ENV=prod",
    "bhatti create --disk 20G --json",
  ],
  async run({ client, options, isJson, out }) {
    const startMs = performance.now()
    const sandbox = await client.createSandbox({
      body: {
        name: options.name,
        image: options.image,
        cpus: options.cpus,
        memory_mb: options.memory,
        disk_size_mb: options.disk,
        env: options.env,
      },
    })
    if (isJson) return await out.json(sandbox)
    const size = `${cpusText(sandbox.cpus)}, ${sandbox.memory_mb} MB`
    await out.result(
      `sandbox/${sandbox.name} created (${size}) in ${secondsText(performance.now() - startMs)}`,
    )
    await out.hint(`  try: bhatti exec ${sandbox.name} -- uname -a`)
  },
})
