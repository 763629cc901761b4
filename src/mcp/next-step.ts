/** The next step after an error, for a model that has these tools and a person beside it who has the command line. */

import type { AppError } from "@bhatti/contract/errors"

/** Returns undefined if there is nothing to advise. */
export function nextStep({ code, subject, hint, reason }: AppError): string | undefined {
  if (code === "forbidden" && reason === "scope")
    return "this API key may not do that; do not try again. Its owner can make one that may: bhatti key create --can ..."
  if (code === "unauthenticated") return "the user saves a valid API key with: bhatti setup"
  if (code === "command_not_found") return hint ?? "install the program in the sandbox first"
  switch (subject?.kind) {
    case "sandbox":
      if (code === "conflict") return "choose another name, or use the sandbox that has it"
      if (code === "limit_exceeded") return "destroy a sandbox that is not needed any more"
      return hint ?? "the tool list shows the sandboxes there are"
    case "snapshot":
      return code === "conflict" ? "choose another name" : "the tool snapshot with action list shows them"
    case "process":
    case "session":
      return hint ?? "the tool process with action list shows the processes of the sandbox"
    case "alias":
      return "choose another alias, or none"
    case "image":
      return hint ?? "leave image out for the default"
    default:
      return hint
  }
}
