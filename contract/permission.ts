/** Rights of an API key that may do less than its user. */

import { z } from "zod"

export const permissions = [
  "read",
  "exec",
  "files",
  "power",
  "edit",
  "publish",
  "create",
  "destroy",
  "snapshots",
  "images",
  "secrets",
] as const

/** Words for a person, by permission. */
export const permissionTexts: Readonly<Record<Permission, string>> = {
  read: "see sandboxes, why they are in their state, their ports and events",
  exec: "run commands, shells and services, and control their processes",
  files: "read and change files",
  power: "start, stop, restart and repair",
  edit: "change settings, among them the network rules and the time to live; services need exec too, and an end that destroys, or sooner, destroy",
  publish: "give ports public URLs, and take them away",
  create: "create sandboxes, and copies of those it sees",
  destroy: "destroy sandboxes",
  snapshots: "make named snapshots; a key for all sandboxes also lists, resumes and deletes them",
  images:
    "list, pull, import, build, tag and delete images, and see such tasks; with files, also save them of sandboxes",
  secrets: "list, set, delete and use secrets and logins at registries",
}

export const Permission = z.enum(permissions)
export type Permission = z.infer<typeof Permission>
