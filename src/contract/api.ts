/**
 * Every operation of the HTTP interface, on one screen.
 *
 * Adding one: 1. shapes beside the resource they belong to; 2. an entry here; 3. its handler in `src/http/routes.ts` (the
 * compiler asks for it); 4. `bun run generate` for docs/openapi.json; 5. a test through the client.
 */

import { z } from "zod"
import { endpoint } from "./endpoint.ts"
import { Exec, ExecClientMessage, ExecEvent, ExecResult, ExecServerMessage, ExecStart } from "./exec.ts"
import { CreateSandbox, DestroyedSandbox, Sandbox } from "./sandbox.ts"
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
} as const

export type Api = typeof api
