/** Operations of images, tasks and logins at registries; a part of `api.ts`. */

import { z } from "zod"
import { endpoint } from "./endpoint.ts"
import {
  DeletedImage,
  Image,
  ImportImageQuery,
  LoggedOut,
  LogIn,
  PrunedImages,
  PullImage,
  RegistryLogin,
  TagImage,
} from "./image.ts"
import { StartedTask, Task, TaskLine } from "./task.ts"

export const imageApi = {
  listImages: endpoint({
    method: "GET",
    path: "/images",
    summary: "Images that sandboxes can be made from, by name: yours, those shared with you, the host's",
    reply: z.array(Image),
    status: 200,
  }),
  pullImage: endpoint({
    method: "POST",
    path: "/images/pull",
    summary: "Pull an image from a registry, as a task",
    body: PullImage,
    reply: StartedTask,
    status: 202,
    existingStatus: 200,
  }),
  importImage: endpoint({
    method: "POST",
    path: "/images/import",
    summary: "Make an image of an archive: of docker save, of an OCI layout, or of a root file system",
    query: ImportImageQuery,
    bodyBytes: true,
    reply: StartedTask,
    status: 202,
  }),
  pruneImages: endpoint({
    method: "POST",
    path: "/images/prune",
    summary: "Delete your images that no sandbox and no snapshot was made from",
    reply: PrunedImages,
    status: 200,
  }),
  getImage: endpoint({
    method: "GET",
    path: "/images/:name",
    summary: "Returns an image by name or id",
    reply: Image,
    status: 200,
  }),
  tagImage: endpoint({
    method: "POST",
    path: "/images/:name/tag",
    summary: "Give an image a further name; both stay",
    body: TagImage,
    reply: Image,
    status: 201,
  }),
  deleteImage: endpoint({
    method: "DELETE",
    path: "/images/:name",
    summary: "Delete an image, unless a sandbox or a snapshot was made from it",
    reply: DeletedImage,
    status: 200,
  }),
  listTasks: endpoint({
    method: "GET",
    path: "/tasks",
    summary: "Your tasks, oldest first; ended ones for a week",
    reply: z.array(Task),
    status: 200,
  }),
  getTask: endpoint({
    method: "GET",
    path: "/tasks/:id",
    summary: "Returns a task",
    reply: Task,
    status: 200,
  }),
  readTask: endpoint({
    method: "GET",
    path: "/tasks/:id/events",
    summary: "The task whenever it changes, until it has ended, as lines of JSON",
    reply: Task,
    status: 200,
    stream: { accept: "application/x-ndjson", event: TaskLine },
  }),
  cancelTask: endpoint({
    method: "DELETE",
    path: "/tasks/:id",
    summary: "Cancel a task; one that has ended stays as it is",
    reply: Task,
    status: 200,
  }),
  listRegistries: endpoint({
    method: "GET",
    path: "/registries",
    summary: "Registries that you are logged in at; passwords are never shown",
    reply: z.array(RegistryLogin),
    status: 200,
  }),
  logIn: endpoint({
    method: "POST",
    path: "/registries",
    summary: "Store a login for your pulls from a registry, encrypted",
    body: LogIn,
    reply: RegistryLogin,
    status: 201,
  }),
  logOut: endpoint({
    method: "DELETE",
    path: "/registries/:host",
    summary: "Delete a login",
    reply: LoggedOut,
    status: 200,
  }),
} as const
