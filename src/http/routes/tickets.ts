/** Handler of tickets for WebSockets. */

import { limits } from "@bhatti/contract/limits"
import type { Handlers } from "../context.ts"

export const tickets = {
  async createSocketTicket({ issueTicket }) {
    return { ticket: await issueTicket(), expires_in_seconds: limits.socketTicketSec }
  },
} satisfies Partial<Handlers>
