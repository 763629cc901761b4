/** Runs the calls in Node.js and Bun: `program.js URL KEY [ws]`. With `ws` it uses the package of that name. */

import type { ClientOptions } from "@bhatti/sdk"
import { runCalls } from "./calls.js"

declare const process: { argv: string[] }

const [, , url = "", token = "", socketPackage] = process.argv
const options: Partial<ClientOptions> = {}
if (socketPackage !== undefined) {
  const { WebSocket: Socket } = await import(socketPackage)
  options.openSocket = (address, headers) => new Socket(address, { headers })
}
console.log(JSON.stringify(await runCalls({ url, token, sendsStreams: true, ...options })))
