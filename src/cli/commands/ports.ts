/** `bhatti ports`. */

import { command } from "../command.ts"

export const ports = command({
  args: ["sandbox"],
  description:
    "TCP ports that something in the sandbox listens on, and the URLs of those that are published.",
  examples: ["bhatti ports dev"],
  async run({ client, args, isJson, out }) {
    const params = { id: args.sandbox }
    const ports = await client.listPorts({ params })
    if (isJson) return await out.json(ports)
    if (ports.length === 0) return await out.talk(`nothing in ${args.sandbox} listens on a TCP port`)
    const published = Map.groupBy(await client.listPublished({ params }), ({ port }) => port)
    const urls = ports.map(({ port }) =>
      published
        .get(port)
        ?.map(({ url }) => url)
        .join(" "),
    )
    const hasUrls = urls.some((text) => text !== undefined)
    await out.table(
      ["PORT", "ADDRESS", ...(hasUrls ? ["URL"] : [])],
      ports.map(({ port, address }, index) => [
        String(port),
        address,
        ...(hasUrls ? [urls[index] ?? "-"] : []),
      ]),
    )
  },
})
