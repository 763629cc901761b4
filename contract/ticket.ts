/** Tickets for clients that cannot send a key with a WebSocket, such as browsers. */

import { z } from "zod"

/**
 * The WebSocket offers the subprotocols `bhatti` and `bhatti.ticket.TICKET`, and the daemon selects the first. A ticket
 * opens one WebSocket, as the key that it was issued for, and is void once that key is replaced.
 */
export const SocketTicket = z
  .object({
    ticket: z.string().describe("Offer the subprotocols `bhatti` and `bhatti.ticket.TICKET`, in this order"),
    expires_in_seconds: z.int(),
  })
  .meta({ id: "SocketTicket" })
export type SocketTicket = z.infer<typeof SocketTicket>
