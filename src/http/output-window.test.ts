/** A stream's output leaves a share to all others. */

import { expect, test } from "bun:test"
import { OutputWindow } from "./output-window.ts"

test("a flood that its socket takes at once lets everybody else have a turn between its pieces", async () => {
  let sentBytes = 0
  const socket = {
    sendBinary(bytes: Uint8Array) {
      sentBytes += bytes.length
      return bytes.length
    },
  }
  const window = new OutputWindow(socket as never, { window: undefined })
  let isOver = false
  const sentAtTurns: number[] = []
  const others = () => {
    sentAtTurns.push(sentBytes)
    if (!isOver) setImmediate(others)
  }
  setImmediate(others)
  const piece = new Uint8Array(32 * 1024)
  for (let count = 0; count < 64; count++) expect(await window.send(piece)).toBe(true)
  isOver = true
  const steps = sentAtTurns.map((bytes, index) => bytes - (sentAtTurns[index - 1] ?? 0))
  expect(sentAtTurns.length).toBeGreaterThan(20)
  expect(Math.max(...steps)).toBeLessThanOrEqual(128 * 1024)
})
