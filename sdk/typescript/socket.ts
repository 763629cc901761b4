/** The part of a WebSocket that streams use. The global one of browsers, Node.js and Bun fits, and the package `ws`. */

import { AppError } from "@bhatti/contract/errors"

export type Socket = {
  binaryType: string
  addEventListener(type: "open" | "message" | "error" | "close", listener: (event: object) => void): void
  send(content: string | Uint8Array<ArrayBuffer>): void
  close(): void
}

type WithHeaders = new (url: string, options: { headers: Record<string, string> }) => Socket

export function openGlobalSocket(url: string, headers: Record<string, string>): Socket {
  const Global: unknown = Reflect.get(globalThis, "WebSocket")
  if (typeof Global !== "function") {
    throw new AppError("unavailable", "this program has no WebSocket, which streams need", {
      retryable: false,
      hint: "Node.js has it from version 22 on; before, pass connect() the option openSocket with the package ws",
    })
  }
  return new (Global as WithHeaders)(url, { headers })
}
