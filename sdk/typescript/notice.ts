/** Notices of the daemon about a sandbox that a stream is connected to. */

import type { NoticeMessage } from "@bhatti/contract/notice"

export type Notice = Omit<NoticeMessage, "type">
export type OnNotice = (notice: Notice) => void
