/** The operations of processes, a part of `api.ts`. */

import { z } from "zod"
import { endpoint } from "./endpoint.ts"
import { ExecClientMessage, ExecServerMessage } from "./exec.ts"
import {
  AttachQuery,
  InputQuery,
  InputTaken,
  OutputQuery,
  Process,
  ProcessDone,
  ResizeProcess,
  SignalProcess,
  StartProcess,
  WaitQuery,
} from "./process.ts"

export const processApi = {
  listProcesses: endpoint({
    method: "GET",
    path: "/sandboxes/:id/processes",
    summary: "Processes of the sandbox that are kept, oldest first",
    reply: z.array(Process),
    status: 200,
  }),
  startProcess: endpoint({
    method: "POST",
    path: "/sandboxes/:id/processes",
    summary: "Start a command without a client; it runs on until it ends",
    body: StartProcess,
    reply: Process,
    status: 201,
    existingStatus: 200,
  }),
  getProcess: endpoint({
    method: "GET",
    path: "/sandboxes/:id/processes/:process",
    summary: "Returns a process by id or name",
    reply: Process,
    status: 200,
  }),
  deleteProcess: endpoint({
    method: "DELETE",
    path: "/sandboxes/:id/processes/:process",
    summary: "Kill a process if it runs, and forget it",
    reply: Process,
    status: 200,
  }),
  signalProcess: endpoint({
    method: "POST",
    path: "/sandboxes/:id/processes/:process/signal",
    summary: "Send a signal to a process, TERM if none is named",
    body: SignalProcess,
    reply: ProcessDone,
    status: 200,
  }),
  writeProcess: endpoint({
    method: "POST",
    path: "/sandboxes/:id/processes/:process/input",
    summary: "Write bytes to a process's standard input; answers when its program has taken them",
    query: InputQuery,
    bodyBytes: true,
    reply: InputTaken,
    status: 200,
  }),
  resizeProcess: endpoint({
    method: "POST",
    path: "/sandboxes/:id/processes/:process/resize",
    summary: "Change the size of a process's terminal",
    body: ResizeProcess,
    reply: ProcessDone,
    status: 200,
  }),
  waitProcess: endpoint({
    method: "GET",
    path: "/sandboxes/:id/processes/:process/wait",
    summary: "Wait until a process has ended",
    query: WaitQuery,
    reply: Process,
    status: 200,
  }),
  readProcess: endpoint({
    method: "GET",
    path: "/sandboxes/:id/processes/:process/output",
    summary:
      "Output of a process from an offset; X-Bhatti-Offset tells where it begins, X-Bhatti-Total how much there was",
    query: OutputQuery,
    reply: z.never(),
    replyBytes: true,
    status: 200,
  }),
  processSocket: endpoint({
    method: "GET",
    path: "/sandboxes/:id/processes/:process/ws",
    summary: "Attach to a process over a WebSocket: type into it, or watch it",
    query: AttachQuery,
    reply: z.never(),
    status: 101,
    socket: { start: z.never(), client: ExecClientMessage, server: ExecServerMessage },
  }),
} as const
