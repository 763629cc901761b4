/**
 * Every operation of the HTTP interface; those of files, processes and images are in files of their own.
 *
 * To add an operation: 1. its shapes beside their resource; 2. an entry here; the compiler asks for the next three:
 * 3. its line in `sdk/typescript/routes.ts`; 4. its handler in `src/http/routes/`, with its views in `src/http/views/`;
 * 5. a good request in `test/http/samples.ts`. Then 6. `bun run generate` for docs/openapi.json; 7. a test through the
 * client.
 */

import { z } from "zod"
import { endpoint } from "./endpoint.ts"
import { Event, EventLine, EventsQuery } from "./event.ts"
import { Exec, ExecClientMessage, ExecEvent, ExecResult, ExecServerMessage, ExecStart } from "./exec.ts"
import { fileApi } from "./file-api.ts"
import { imageApi } from "./image-api.ts"
import { ApiKey, CreatedKey, CreateKey, RevokedKey } from "./key.ts"
import { processApi } from "./process-api.ts"
import { ListeningPort, Publish, PublishedPort, UnpublishQuery } from "./publish.ts"
import {
  CreateSandbox,
  CreateSandboxes,
  DestroyedSandbox,
  ListSandboxes,
  Repaired,
  Sandbox,
  StartSandbox,
  UpdateSandbox,
  Why,
} from "./sandbox.ts"
import { DeletedSecret, Secret, SetSecret } from "./secret.ts"
import { ControlService, ServiceState } from "./services.ts"
import {
  KilledSession,
  KillSession,
  Session,
  ShellClientMessage,
  ShellQuery,
  ShellServerMessage,
} from "./session.ts"
import { Checkpoint, DeletedSnapshot, ResumeSnapshot, Snapshot } from "./snapshot.ts"
import { Health, Version } from "./system.ts"
import { SocketTicket } from "./ticket.ts"

const emptyOfCreate = [
  "template_id",
  "volumes",
  "new_volumes",
  "persistent_volumes",
  "mounts",
  "hugepages",
] as const

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
    query: ListSandboxes,
    reply: z.array(Sandbox),
    status: 200,
  }),
  createSandbox: endpoint({
    method: "POST",
    path: "/sandboxes",
    summary: "Create a sandbox; it is running when this answers, and is undone if the client leaves before",
    body: CreateSandbox,
    emptyFields: emptyOfCreate,
    reply: Sandbox,
    status: 201,
    existingStatus: 200,
  }),
  createSandboxes: endpoint({
    method: "POST",
    path: "/sandboxes/batch",
    summary: "Create several sandboxes, all of them or none; copies of one sandbox are of the same instant",
    body: CreateSandboxes,
    emptyFields: emptyOfCreate,
    reply: z.array(Sandbox),
    status: 201,
  }),
  getSandbox: endpoint({
    method: "GET",
    path: "/sandboxes/:id",
    summary: "Returns a sandbox by name or id",
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
    summary: "Save a sandbox's memory to disk and free the host's; the next request resumes it",
    reply: Sandbox,
    status: 200,
  }),
  startSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/start",
    summary: "Start a sandbox that is stopped or paused",
    body: StartSandbox,
    reply: Sandbox,
    status: 200,
  }),
  repairSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/repair",
    summary: "Repair a sandbox's file system: it boots anew, and what ran in it has ended",
    reply: Repaired,
    status: 200,
  }),
  restartSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/restart",
    summary: "Shut a sandbox down in good order and boot it from its disk",
    reply: Sandbox,
    status: 200,
  }),
  checkpointSandbox: endpoint({
    method: "POST",
    path: "/sandboxes/:id/checkpoint",
    summary: "Keep a named snapshot of a sandbox, memory included; it keeps running",
    body: Checkpoint,
    emptyFields: ["type"],
    reply: Snapshot,
    status: 201,
  }),
  listSnapshots: endpoint({
    method: "GET",
    path: "/snapshots",
    summary: "Your named snapshots, oldest first",
    reply: z.array(Snapshot),
    status: 200,
  }),
  getSnapshot: endpoint({
    method: "GET",
    path: "/snapshots/:name",
    summary: "Returns a snapshot by name or id",
    reply: Snapshot,
    status: 200,
  }),
  deleteSnapshot: endpoint({
    method: "DELETE",
    path: "/snapshots/:name",
    summary: "Delete a snapshot; sandboxes that were made from it stay",
    reply: DeletedSnapshot,
    status: 200,
  }),
  resumeSnapshot: endpoint({
    method: "POST",
    path: "/snapshots/:name/resume",
    summary: "Make a new sandbox that continues from the snapshot",
    body: ResumeSnapshot,
    reply: Sandbox,
    status: 201,
  }),
  listEvents: endpoint({
    method: "GET",
    path: "/events",
    summary: "What happened to your sandboxes, oldest first; with follow=true also what happens from now on",
    query: EventsQuery,
    reply: z.array(Event),
    status: 200,
    stream: { accept: "application/x-ndjson", event: EventLine },
  }),
  exec: endpoint({
    method: "POST",
    path: "/sandboxes/:id/exec",
    summary: "Run a command and wait for it; with Accept: application/x-ndjson its output streams",
    body: Exec,
    emptyFields: ["detach", "output_file"],
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
  ...processApi,
  createSocketTicket: endpoint({
    method: "POST",
    path: "/ws-tickets",
    summary: "Get a ticket that opens one WebSocket, for clients that cannot send a key with it",
    reply: SocketTicket,
    status: 201,
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
  readSession: endpoint({
    method: "GET",
    path: "/sandboxes/:id/sessions/:session/output",
    summary: "The last 256 KiB of a session's terminal output, by the session's id or name",
    reply: z.never(),
    replyBytes: true,
    status: 200,
  }),
  listServices: endpoint({
    method: "GET",
    path: "/sandboxes/:id/services",
    summary: "Services of the sandbox, in the order of their starts",
    reply: z.array(ServiceState),
    status: 200,
  }),
  controlService: endpoint({
    method: "POST",
    path: "/sandboxes/:id/services/:service",
    summary: "Start, stop or restart a service",
    body: ControlService,
    reply: ServiceState,
    status: 200,
  }),
  ...fileApi,
  ...imageApi,
  createKey: endpoint({
    method: "POST",
    path: "/keys",
    summary: "Make a key that may do less than yours; the answer alone shows it",
    body: CreateKey,
    reply: CreatedKey,
    status: 201,
  }),
  listKeys: endpoint({
    method: "GET",
    path: "/keys",
    summary: "Your keys with less than all rights, oldest first",
    reply: z.array(ApiKey),
    status: 200,
  }),
  revokeKey: endpoint({
    method: "DELETE",
    path: "/keys/:name",
    summary: "Revoke a key by name or id: what is open with it ends",
    reply: RevokedKey,
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
    summary: "Give a port of the sandbox a public URL; another alias is a further URL of it",
    body: Publish,
    reply: PublishedPort,
    status: 201,
    existingStatus: 200,
  }),
  listPublished: endpoint({
    method: "GET",
    path: "/sandboxes/:id/publish",
    summary: "Published ports of the sandbox, an entry for each alias, oldest first",
    reply: z.array(PublishedPort),
    status: 200,
  }),
  unpublishPort: endpoint({
    method: "DELETE",
    path: "/sandboxes/:id/publish/:port",
    summary: "Take a port's public URLs away, or one of them, for open connections too",
    query: UnpublishQuery,
    reply: z.null(),
    status: 204,
  }),
} as const

export type Api = typeof api
