/** `bhatti publish`. */

import { command } from "../command.ts"
import { ageText } from "../words.ts"

export const publish = command({
  args: ["sandbox"],
  description: `Prints the URL; anyone who knows it can use the port, without a key. Without --alias the URL has random characters, so that it
cannot be guessed. Requests wake the sandbox. A port may have several aliases; publishing it again under the same alias prints its URL.`,
  options: {
    port: {
      type: "integer",
      short: "p",
      value: "PORT",
      min: 1,
      max: 65_535,
      summary: "Port to publish",
      fallback: "the only one that the image names",
    },
    alias: {
      type: "text",
      short: "a",
      value: "ALIAS",
      summary: "First part of the URL's host name: lower-case letters, digits, inner hyphens",
      fallback: "the one the port has already, or a generated one",
    },
    list: { type: "flag", short: "l", summary: "List published ports instead" },
  },
  refuse: ({ options }) => {
    const isPlain = options.port === undefined && options.alias === undefined
    return options.list && !isPlain ? "--list takes no --port or --alias" : undefined
  },
  examples: [
    "bhatti publish dev -p 3000",
    "bhatti publish dev -p 3000 -a my-app",
    "bhatti publish dev --list",
  ],
  async run({ client, args, options, isJson, out }) {
    const params = { id: args.sandbox }
    if (options.list) {
      const published = await client.listPublished({ params })
      if (isJson) return await out.json(published)
      if (published.length === 0) return await out.talk(`no port of ${args.sandbox} is published`)
      const nowMs = Date.now()
      return await out.table(
        ["PORT", "URL", "SINCE"],
        published.map(({ port, url, created_at }) => [String(port), url, ageText(created_at, nowMs)]),
      )
    }
    const { port, alias } = options
    const published = await client.publishPort({
      params,
      body: { ...(port === undefined ? {} : { port }), ...(alias === undefined ? {} : { alias }) },
    })
    if (isJson) return await out.json(published)
    await out.result(published.url)
  },
})
