/**
 * Checks that an exec fits into one request before sending it: a refusal by the daemon would describe the request,
 * not the arguments.
 */

import { limits } from "@bhatti/contract/limits"
import { bytesText } from "./words.ts"
import { WrongUsage } from "./wrong-usage.ts"

/** Limit on the daemon's request to the guest, as JSON (protocol/PROTOCOL.md), less the fields that the daemon adds. */
const requestBytesMax = 256 * 1024 - 1024

const hint = "give many words or long ones through standard input (exec -i) or a file (bhatti cp)"

export function checkFits(request: { cmd: readonly string[] }): void {
  const { cmd } = request
  if (cmd[0] === "") throw new WrongUsage("the command's name is empty")
  if (cmd.length > limits.execArgsMax)
    throw new WrongUsage(`the command has ${cmd.length} words; at most ${limits.execArgsMax} are allowed`, {
      hint,
    })
  const letters = cmd.reduce((sum, word) => sum + word.length + 1, 0)
  if (letters > limits.execRequestBytesMax)
    throw new WrongUsage(
      `the command has ${bytesText(letters)}; at most ${bytesText(limits.execRequestBytesMax)} are allowed`,
      { hint },
    )
  // Control characters and the like take up to six bytes.
  const bytes = Buffer.byteLength(JSON.stringify(request))
  if (bytes > requestBytesMax)
    throw new WrongUsage(
      `the command has ${bytesText(bytes)} as it is sent; at most ${bytesText(requestBytesMax)} are allowed`,
      { hint },
    )
}
