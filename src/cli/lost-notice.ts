/** Tells on standard error that a lost connection is being retried, if that takes a while. */

import type { Reconnection } from "@bhatti/sdk/reconnection"
import type { Output } from "./output.ts"

const noticeAfterMs = 2000

export function withLostNotice(out: Output): Reconnection {
  let timer: Timer | undefined
  return {
    onChange(state) {
      clearTimeout(timer)
      if (state === "lost")
        timer = setTimeout(() => void out.talk("bhatti: connection lost; trying again…"), noticeAfterMs)
    },
  }
}
