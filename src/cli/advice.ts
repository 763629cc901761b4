/** The next step after an error: the command to type, made from the error's code and subject. */

import type { ErrorCode, Subject } from "@bhatti/contract/errors"
import { defaultDataDir } from "@bhatti/contract/limits"

type Told = {
  readonly code: ErrorCode
  readonly subject?: Subject | undefined
  readonly hint?: string | undefined
}

/** Returns undefined if there is nothing to advise. A daemon may send kinds of subjects that this table lacks. */
export function adviceFor({ code, subject, hint }: Told): string | undefined {
  switch (subject?.kind) {
    case "sandbox":
      if (code === "conflict") return `choose another name, or: bhatti destroy ${subject.name}`
      return hint ?? "bhatti list"
    case "snapshot":
      if (code === "conflict") return `choose another name, or: bhatti snapshot delete ${subject.name}`
      return code === "limit_exceeded" ? "bhatti snapshot delete one of them" : "bhatti snapshot list"
    case "secret":
      return code === "limit_exceeded" ? "bhatti secret delete one of them" : "bhatti secret list"
    case "image":
      if (code === "limit_exceeded") return "bhatti image delete one of them"
      if (code === "conflict") return hint ?? `choose another name, or: bhatti image delete ${subject.name}`
      return hint ?? "bhatti image list"
    case "task":
      return hint ?? "bhatti task list"
    case "registry":
      return hint ?? "bhatti registry list"
    case "user":
      return code === "conflict" ? `bhatti user rotate-key ${subject.name}` : "bhatti user list"
    case "session":
    case "process":
      return hint ?? `bhatti ps ${subject.sandbox}`
    case "alias":
      if (subject.port === undefined) return "choose another one with --alias"
      return `choose another one, or unpublish port ${subject.port} with --alias ${subject.alias} first`
    case "published_port":
      if (subject.sandbox === undefined) return "bhatti unpublish one of them"
      return `bhatti publish ${subject.sandbox} --list`
    case "failed_starts":
      return `it is tried again in ${subject.seconds} s, or at once by: bhatti start ${subject.sandbox} --force`
    case "disk_quota":
      return `destroy another sandbox or delete a snapshot, or ask the operator for a higher quota; to remove files inside: bhatti start ${subject.sandbox}`
    case "file":
      return "split it, or copy it from a file with bhatti cp, which has no such limit"
    case "kernel":
      return "sudo bhatti init installs a newer one, then try again"
    case "installation": {
      const { data_dir: dataDir = defaultDataDir, image } = subject
      const place = dataDir === defaultDataDir ? [] : [`--data-dir ${dataDir}`]
      const words = [...(image === undefined ? [] : [`--image ${image}`]), ...place]
      const install = ["sudo bhatti init", ...words].join(" ")
      return hint === undefined ? install : `${hint}; to install it: ${install}`
    }
    case "host":
      return hint === undefined
        ? "sudo bhatti doctor says what this host lacks"
        : `${hint}; sudo bhatti doctor`
    default:
      return hint
  }
}
