/** The part of a WebSocket that streams use. The global one of browsers, Node.js and Bun fits, and the package `ws`. */

import { AppError } from "@bhatti/contract/errors"
import { socketProtocol, ticketProtocol } from "@bhatti/contract/limits"

export type Socket = {
  binaryType: string
  addEventListener(type: "open" | "message" | "error" | "close", listener: (event: object) => void): void
  send(content: string | Uint8Array<ArrayBuffer>): void
  close(): void
}

type GlobalSocket = new (url: string, protocols: string[]) => Socket

/** Opens the global WebSocket, which in a browser sends no key: a ticket among its subprotocols stands for it. */
export async function openGlobalSocket(url: string, issueTicket: () => Promise<string>): Promise<Socket> {
  const Global: unknown = Reflect.get(globalThis, "WebSocket")
  if (typeof Global !== "function") {
    throw new AppError("unavailable", "this program has no WebSocket, which streams need", {
      retryable: false,
      hint: "Node.js has it from version 22 on; before, pass connect() the option openSocket with the package ws",
    })
  }
  const ticket = await issueTicket()
  return new (Global as GlobalSocket)(url, [socketProtocol, ticketProtocol + ticket])
}
