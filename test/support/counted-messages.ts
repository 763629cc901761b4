/**
 * Makes the daemon of this process pass by a test with each message that it sends to a zygote or to its child. Only
 * modules that are imported afterwards are changed.
 */

import { readFileSync } from "node:fs"
import { plugin } from "bun"

type Passing = <T>(name: string, send: () => T) => T

const key = "bhattiTestMessages"
const requests = ["check", "stop", "fork"]

/** This text stands behind the module's own, and takes the place of a function of it. */
const wrapped = `
const passing = globalThis.${key};
export function sendDescriptors(socket: number, bytes: Uint8Array, descriptors: readonly number[]): boolean {
  const name = passing.nameOf(bytes);
  const send = () => ownSendDescriptors(socket, bytes, descriptors);
  return name === undefined ? send() : passing.call(name, send);
}`

/** A request of the protocol in zygote/zygote.h, or an answer to a child. */
function nameOf(bytes: Uint8Array): string | undefined {
  const words = Buffer.from(bytes).toString()
  if (words === "granted" || words === "run") return `tell a child: ${words}`
  const operation = bytes.length === 32 ? requests[Buffer.from(bytes).readUInt32LE(4) - 1] : undefined
  return operation && `ask a zygote: ${operation}`
}

export function countMessages(call: Passing): void {
  Object.assign(globalThis, { [key]: { call, nameOf } })
  plugin({
    name: "messages to zygotes",
    setup(build) {
      build.onLoad({ filter: /\/src\/lib\/descriptor-passing\.ts$/ }, ({ path }) => {
        let text = readFileSync(path, "utf8")
        const head = "export function sendDescriptors("
        if (!text.includes(head)) throw new Error(`${path} has no function to send with`)
        text = text.replace(head, "function ownSendDescriptors(")
        return { contents: `${text}${wrapped}`, loader: "ts" }
      })
    },
  })
}
