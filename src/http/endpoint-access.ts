/** The rights that each endpoint needs of a key which may do less than its user. */

import type { Api } from "@bhatti/contract/api"
import type { Permission } from "@bhatti/contract/permission"
import type { Access } from "../gate/access.ts"

const sandbox = (can: Permission): Access => ({ can, of: "sandbox" })
const account = (can: Permission): Access => ({ can, of: "account" })

/** An endpoint that is not listed here is for users' own keys alone. */
export const endpointAccess: Partial<Record<keyof Api, Access>> = {
  version: "any key",
  createSocketTicket: "any key",

  listSandboxes: sandbox("read"),
  getSandbox: sandbox("read"),
  whySandbox: sandbox("read"),
  listEvents: sandbox("read"),
  listPorts: sandbox("read"),
  listPublished: sandbox("read"),

  exec: sandbox("exec"),
  execSocket: sandbox("exec"),
  shellSocket: sandbox("exec"),
  listProcesses: sandbox("exec"),
  startProcess: sandbox("exec"),
  getProcess: sandbox("exec"),
  deleteProcess: sandbox("exec"),
  signalProcess: sandbox("exec"),
  writeProcess: sandbox("exec"),
  resizeProcess: sandbox("exec"),
  waitProcess: sandbox("exec"),
  readProcess: sandbox("exec"),
  processSocket: sandbox("exec"),
  listSessions: sandbox("exec"),
  killSession: sandbox("exec"),
  readSession: sandbox("exec"),
  listServices: sandbox("exec"),
  controlService: sandbox("exec"),

  readFile: sandbox("files"),
  writeFile: sandbox("files"),
  setAttributes: sandbox("files"),
  removeFile: sandbox("files"),
  makeDirectory: sandbox("files"),
  moveFile: sandbox("files"),
  watchFiles: sandbox("files"),
  createWatch: sandbox("files"),
  readWatch: sandbox("files"),
  deleteWatch: sandbox("files"),
  readArchive: sandbox("files"),
  writeArchive: sandbox("files"),

  stopSandbox: sandbox("power"),
  startSandbox: sandbox("power"),
  restartSandbox: sandbox("power"),
  repairSandbox: sandbox("power"),

  updateSandbox: sandbox("edit"),
  publishPort: sandbox("publish"),
  unpublishPort: sandbox("publish"),
  destroySandbox: sandbox("destroy"),

  createSandbox: account("create"),
  createSandboxes: account("create"),

  checkpointSandbox: sandbox("snapshots"),
  listSnapshots: account("snapshots"),
  getSnapshot: account("snapshots"),
  deleteSnapshot: account("snapshots"),
  resumeSnapshot: account("snapshots"),

  listImages: account("images"),
  pullImage: account("images"),
  importImage: account("images"),
  listHostImages: account("images"),
  installHostImage: account("images"),
  saveImage: account("images"),
  exportImage: account("images"),
  pushImage: account("images"),
  buildImage: account("images"),
  pruneImages: account("images"),
  getImage: account("images"),
  tagImage: account("images"),
  deleteImage: account("images"),
  listTasks: account("images"),
  getTask: account("images"),
  readTask: account("images"),
  cancelTask: account("images"),

  listSecrets: account("secrets"),
  setSecret: account("secrets"),
  deleteSecret: account("secrets"),
  listRegistries: account("secrets"),
  logIn: account("secrets"),
  logOut: account("secrets"),
}
