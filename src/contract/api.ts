/**
 * Every operation of the HTTP interface, on one screen.
 *
 * Adding one: 1. shapes beside the resource they belong to; 2. an entry here; 3. its handler in `src/http/routes.ts` (the
 * compiler asks for it); 4. `bun run generate` for docs/openapi.json; 5. a test through the client.
 */

import { z } from "zod"
import { endpoint } from "./endpoint.ts"
import { Exec, ExecClientMessage, ExecEvent, ExecResult, ExecServerMessage, ExecStart } from "./exec.ts"
import {
  ArchiveQuery,
  Done,
  FileEntry,
  MakeDirectory,
  MoveFile,
  ReadFileQuery,
  RemoveFileQuery,
  Unpacked,
  WriteFileQuery,
} from "./file.ts"
import { ListeningPort, Publish, PublishedPort } from "./publish.ts"
import { CreateSandbox, DestroyedSandbox, Sandbox, UpdateSandbox, Why } from "./sandbox.ts"
import { DeletedSecret, Secret, SetSecret } from "./secret.ts"
import {
  KilledSession,
  KillSession,
  Session,
  ShellClientMessage,
  ShellQuery,
  ShellServerMessage,
} from "./session.ts"
import { Health, Version } from "./system.ts"

export const api = {
  health: endpoint({
    method: "GET",
    path: "/health",
    summary: "Whether the daemon answers",
    isPublic: true,
    reply: Health,
    status: 200,
  }),
  version: endpoint({
    method: "GET",
    path: "/version",
    summary: "Version, accelerator and what the host can promise",
    reply: Version,
    status: 200,
  }),
  listSandboxes: endpoint({
    method: "GET",
    path: "/sandboxes",
    summary: "Your sandboxes, oldest first",
    reply: z.array(Sandbox),
    status: 200,
  }),
  createSandbox: endpoint({
    method: "POST",
    path: "/sandboxes",
    summary: "Create a sandbox; it is running when this answers",
    body: CreateSandbox,
    reply: Sandbox,
    status: 201,
  }),
  getSandbox: endpoint({
    method: "GET",
    path: "/sandboxes/:id",
    summary: "One sandbox, by name or id",
    reply: Sandbox,
    status: 200,
  }),
  destroySandbox: endpoint({
    method: "DELETE",
    path: "/sandboxes/:id",
    summary: "Destroy a sandbox and its disk",
    reply: DestroyedSandbox,
    status: 200,
  }),
  updateSandbox: endpoint({
    method: "PATCH",
    path: "/sandboxes/:id",
    summary: "Rename a sandbox, change its labels, or whether it is paused when idle",
    body: UpdateSandbox,
    reply: Sandbox,
    status: 200,
  }),
  whySandbox: endpoint({
    method: "GET",
    path: "/sandboxes/:id/why",
    summary: "Why a sandbox is in its state, and when that changes by itself",
    reply: Why,
    status: 200,
  }),
  stopSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/stop",
    summary:
      "Write a sandbox's memory to disk and free the host's; the next request starts it again as it was",
    reply: Sandbox,
    status: 200,
  }),
  startSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/start",
    summary: "Start a sandbox that is stopped or paused",
    reply: Sandbox,
    status: 200,
  }),
  exec: endpoint({
    method: "POST",
    path: "/sandboxes/:id/exec",
    summary: "Run a command and wait for it; with Accept: application/x-ndjson its output streams",
    body: Exec,
    reply: ExecResult,
    status: 200,
    stream: { accept: "application/x-ndjson", event: ExecEvent },
  }),
  execSocket: endpoint({
    method: "GET",
    path: "/sandboxes/:id/exec/ws",
    summary: "Run a command over a WebSocket, with standard input, signals and an optional terminal",
    reply: z.never(),
    status: 101,
    socket: { start: ExecStart, client: ExecClientMessage, server: ExecServerMessage },
  }),
  shellSocket: endpoint({
    method: "GET",
    path: "/sandboxes/:id/ws",
    summary: "A terminal in the sandbox over a WebSocket; closing it leaves the session running",
    query: ShellQuery,
    reply: z.never(),
    status: 101,
    socket: { start: z.never(), client: ShellClientMessage, server: ShellServerMessage },
  }),
  listSessions: endpoint({
    method: "GET",
    path: "/sandboxes/:id/sessions",
    summary: "Sessions of the sandbox, oldest first",
    reply: z.array(Session),
    status: 200,
  }),
  killSession: endpoint({
    method: "POST",
    path: "/sandboxes/:id/sessions/:session/kill",
    summary: "Send a signal to a session, KILL if none is named",
    body: KillSession,
    reply: KilledSession,
    status: 200,
  }),
  readFile: endpoint({
    method: "GET",
    path: "/sandboxes/:id/files",
    summary: "A file's bytes, a directory's entries, or what a file is",
    query: ReadFileQuery,
    reply: z.union([FileEntry, z.array(FileEntry)]),
    replyBytes: true,
    status: 200,
  }),
  writeFile: endpoint({
    method: "PUT",
    path: "/sandboxes/:id/files",
    summary: "Write a file as a whole: readers see the old one or the new one",
    query: WriteFileQuery,
    bodyBytes: true,
    reply: Done,
    status: 200,
  }),
  removeFile: endpoint({
    method: "DELETE",
    path: "/sandboxes/:id/files",
    summary: "Remove a file or a directory",
    query: RemoveFileQuery,
    reply: Done,
    status: 200,
  }),
  makeDirectory: endpoint({
    method: "POST",
    path: "/sandboxes/:id/files/mkdir",
    summary: "Make a directory",
    body: MakeDirectory,
    reply: Done,
    status: 200,
  }),
  moveFile: endpoint({
    method: "POST",
    path: "/sandboxes/:id/files/mv",
    summary: "Move or rename a file or a directory",
    body: MoveFile,
    reply: Done,
    status: 200,
  }),
  readArchive: endpoint({
    method: "GET",
    path: "/sandboxes/:id/archive",
    summary: "A file or directory as a tar stream",
    query: ArchiveQuery,
    reply: z.never(),
    replyBytes: true,
    status: 200,
  }),
  writeArchive: endpoint({
    method: "PUT",
    path: "/sandboxes/:id/archive",
    summary: "Unpack a tar stream below a directory",
    query: ArchiveQuery,
    bodyBytes: true,
    reply: Unpacked,
    status: 200,
  }),
  listSecrets: endpoint({
    method: "GET",
    path: "/secrets",
    summary: "Names of your secrets; values are never shown",
    reply: z.array(Secret),
    status: 200,
  }),
  setSecret: endpoint({
    method: "POST",
    path: "/secrets",
    summary: "Set a secret; sandboxes that have the old value keep it",
    body: SetSecret,
    reply: Secret,
    status: 201,
  }),
  deleteSecret: endpoint({
    method: "DELETE",
    path: "/secrets/:name",
    summary: "Delete a secret",
    reply: DeletedSecret,
    status: 200,
  }),
  listPorts: endpoint({
    method: "GET",
    path: "/sandboxes/:id/ports",
    summary: "TCP ports that something in the sandbox listens on",
    reply: z.array(ListeningPort),
    status: 200,
  }),
  publishPort: endpoint({
    method: "POST",
    path: "/sandboxes/:id/publish",
    summary: "Give a port of the sandbox a public URL",
    body: Publish,
    reply: PublishedPort,
    status: 201,
  }),
  listPublished: endpoint({
    method: "GET",
    path: "/sandboxes/:id/publish",
    summary: "Published ports of the sandbox",
    reply: z.array(PublishedPort),
    status: 200,
  }),
  unpublishPort: endpoint({
    method: "DELETE",
    path: "/sandboxes/:id/publish/:port",
    summary: "Take a port's public URL away, for open connections too",
    reply: z.null(),
    status: 204,
  }),
} as const

export type Api = typeof api
