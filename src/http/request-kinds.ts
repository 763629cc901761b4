/** How each endpoint counts towards its user's rates. */

import type { Api } from "@bhatti/contract/api"
import type { RequestKind } from "../gate/request-rates.ts"

/** Endpoints not listed here are "other". */
export const requestKinds: Partial<Record<keyof Api, RequestKind>> = {
  createSandbox: "create",
  createSandboxes: "create",
  checkpointSandbox: "create",
  resumeSnapshot: "create",
  pullImage: "create",
  importImage: "create",
  saveImage: "create",
  installHostImage: "create",
  buildImage: "create",
  exportImage: "create",
  pushImage: "create",
  exec: "exec",
  execSocket: "exec",
  shellSocket: "exec",
  startProcess: "exec",
  writeProcess: "exec",
  processSocket: "exec",
  createWatch: "exec",
  watchFiles: "exec",
  setAttributes: "exec",
  writeFile: "exec",
  writeArchive: "exec",
}
