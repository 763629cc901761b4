/** TCP in the guest: a connection to one of its ports, and the list of listening ports. */

import type { GuestOpenings, ListeningPort } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isObject, parseObject } from "./message.ts"
import { Operation, quiet, type StreamLink } from "./operation.ts"

const connectDeadlineMs = 20_000
/** The limit that the protocol sets on the list. */
const portsMax = 2048

export const dialRequest = ({ port }: GuestOpenings["dial"]) => ({ op: "dial", port })

/** A connection to a port of the guest. Ending its input half-closes it, closing resets it. */
export class Connection extends Operation<true, void> {
  constructor(id: number, link: StreamLink) {
    super(id, link, {
      parseFirst: (payload) => (isObject(parseObject(payload).connected) ? true : undefined),
      parseAnswer: () => undefined,
      toChunk: (_, bytes) => bytes,
      outputFails: true,
      firstDeadlineMs: connectDeadlineMs,
    })
  }

  get connected(): Promise<void> {
    return quiet(this.first.then(() => undefined))
  }
}

export function parsePorts(value: unknown): ListeningPort[] {
  if (!isObject(value) || !Array.isArray(value.ports) || value.ports.length > portsMax) {
    throw new WireError("the guest's list of ports cannot be read")
  }
  return value.ports.map((entry: unknown) => {
    if (isObject(entry)) {
      const { port, address } = entry
      const isPort = typeof port === "number" && Number.isInteger(port) && port >= 1 && port <= 65535
      if (isPort && typeof address === "string") return { port, address }
    }
    throw new WireError("the guest's list of ports cannot be read")
  })
}
