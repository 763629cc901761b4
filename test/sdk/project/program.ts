/**
 * Runs the calls in Node.js and Bun: `program.js URL KEY [ws | none]`. With `ws` it opens streams with the package of
 * that name; `none` prints the error of a stream where there is no WebSocket.
 */

import { type ClientOptions, connect } from "@bhatti/sdk"
import { runCalls } from "./calls.js"

declare const process: { argv: string[] }

const [, , url = "", token = "", sockets] = process.argv
const options: ClientOptions = { url, token }
if (sockets === "ws") {
  const { WebSocket: Socket } = await import(sockets)
  options.openSocket = (address, headers) => new Socket(address, { headers })
}
if (sockets === "none") {
  Reflect.deleteProperty(globalThis, "WebSocket")
  console.log(
    await connect(options)
      .execStream("dev", { cmd: ["true"] })
      .exit.catch(JSON.stringify),
  )
} else {
  console.log(JSON.stringify(await runCalls({ ...options, sendsStreams: true })))
}
