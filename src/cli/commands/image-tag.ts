/** `bhatti image tag`. */

import { command } from "../command.ts"

export const imageTag = command({
  args: ["image", "name"],
  description:
    "Gives an image a further name. Both are images of their own, and share their space on the host.",
  examples: ["bhatti image tag registry.example.com/team/app:1.4 app"],
  async run({ client, args, isJson, out }) {
    const image = await client.tagImage({ params: { name: args.image }, body: { name: args.name } })
    if (isJson) return await out.json(image)
    await out.result(`image/${image.name} tagged`)
  },
})
