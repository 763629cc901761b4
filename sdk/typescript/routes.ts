/**
 * Method and path of every operation at run time without zod, which takes longer to load than the command line's whole
 * start. The compiler checks this table against `contract/api.ts`, of which only the types are imported.
 */

import type { Api } from "@bhatti/contract/api"

export const routes: { readonly [Name in keyof Api]: `${Api[Name]["method"]} ${Api[Name]["path"]}` } = {
  health: "GET /health",
  version: "GET /version",
  listSandboxes: "GET /sandboxes",
  createSandbox: "POST /sandboxes",
  createSandboxes: "POST /sandboxes/batch",
  getSandbox: "GET /sandboxes/:id",
  destroySandbox: "DELETE /sandboxes/:id",
  updateSandbox: "PATCH /sandboxes/:id",
  whySandbox: "GET /sandboxes/:id/why",
  stopSandbox: "POST /sandboxes/:id/stop",
  startSandbox: "POST /sandboxes/:id/start",
  repairSandbox: "POST /sandboxes/:id/repair",
  restartSandbox: "POST /sandboxes/:id/restart",
  checkpointSandbox: "POST /sandboxes/:id/checkpoint",
  listSnapshots: "GET /snapshots",
  getSnapshot: "GET /snapshots/:name",
  deleteSnapshot: "DELETE /snapshots/:name",
  resumeSnapshot: "POST /snapshots/:name/resume",
  listEvents: "GET /events",
  exec: "POST /sandboxes/:id/exec",
  execSocket: "GET /sandboxes/:id/exec/ws",
  shellSocket: "GET /sandboxes/:id/ws",
  listProcesses: "GET /sandboxes/:id/processes",
  startProcess: "POST /sandboxes/:id/processes",
  getProcess: "GET /sandboxes/:id/processes/:process",
  deleteProcess: "DELETE /sandboxes/:id/processes/:process",
  signalProcess: "POST /sandboxes/:id/processes/:process/signal",
  writeProcess: "POST /sandboxes/:id/processes/:process/input",
  resizeProcess: "POST /sandboxes/:id/processes/:process/resize",
  waitProcess: "GET /sandboxes/:id/processes/:process/wait",
  readProcess: "GET /sandboxes/:id/processes/:process/output",
  processSocket: "GET /sandboxes/:id/processes/:process/ws",
  createSocketTicket: "POST /ws-tickets",
  listSessions: "GET /sandboxes/:id/sessions",
  killSession: "POST /sandboxes/:id/sessions/:session/kill",
  readSession: "GET /sandboxes/:id/sessions/:session/output",
  listServices: "GET /sandboxes/:id/services",
  controlService: "POST /sandboxes/:id/services/:service",
  readFile: "GET /sandboxes/:id/files",
  writeFile: "PUT /sandboxes/:id/files",
  setAttributes: "PATCH /sandboxes/:id/files/attributes",
  removeFile: "DELETE /sandboxes/:id/files",
  makeDirectory: "POST /sandboxes/:id/files/mkdir",
  moveFile: "POST /sandboxes/:id/files/mv",
  watchFiles: "GET /sandboxes/:id/files/watch",
  createWatch: "POST /sandboxes/:id/files/watches",
  readWatch: "GET /sandboxes/:id/files/watches/:watch",
  deleteWatch: "DELETE /sandboxes/:id/files/watches/:watch",
  readArchive: "GET /sandboxes/:id/archive",
  writeArchive: "PUT /sandboxes/:id/archive",
  listImages: "GET /images",
  pullImage: "POST /images/pull",
  importImage: "POST /images/import",
  saveImage: "POST /sandboxes/:id/save-image",
  listHostImages: "GET /host-images",
  installHostImage: "POST /host-images/:name/install",
  buildImage: "POST /images/build",
  exportImage: "GET /images/:name/export",
  pushImage: "POST /images/:name/push",
  pruneImages: "POST /images/prune",
  getImage: "GET /images/:name",
  tagImage: "POST /images/:name/tag",
  deleteImage: "DELETE /images/:name",
  listTasks: "GET /tasks",
  getTask: "GET /tasks/:id",
  readTask: "GET /tasks/:id/events",
  cancelTask: "DELETE /tasks/:id",
  listRegistries: "GET /registries",
  logIn: "POST /registries",
  logOut: "DELETE /registries/:host",
  createKey: "POST /keys",
  listKeys: "GET /keys",
  revokeKey: "DELETE /keys/:name",
  listSecrets: "GET /secrets",
  setSecret: "POST /secrets",
  deleteSecret: "DELETE /secrets/:name",
  listPorts: "GET /sandboxes/:id/ports",
  publishPort: "POST /sandboxes/:id/publish",
  listPublished: "GET /sandboxes/:id/publish",
  unpublishPort: "DELETE /sandboxes/:id/publish/:port",
}

export type RouteName = keyof typeof routes

/** The route's method and its path with every `:name` replaced by the parameter of that name, encoded. */
export function fillRoute(
  name: RouteName,
  params: Readonly<Record<string, string>> = {},
): { method: string; path: string } {
  const [method = "", template = ""] = routes[name].split(" ")
  const path = template.replace(/:(\w+)/g, (_, key: string) => {
    const value = params[key]
    if (value === undefined) throw new Error(`${name} needs the parameter ${key}`)
    return encodeSegment(value)
  })
  return { method, path }
}

/** encodeURIComponent keeps `.` and `..`; a URL parser would then remove the segment and reach another operation. */
function encodeSegment(value: string): string {
  const encoded = encodeURIComponent(value)
  return encoded === "." || encoded === ".." ? encoded.replaceAll(".", "%2E") : encoded
}
