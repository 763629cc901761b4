/**
 * The MCP server: a few tools over the TypeScript client, so that the daemon sees usual requests with the user's key,
 * its rights and its rates. The same tools serve both eras of the protocol; the SDK tells them apart.
 */

import type { Client } from "@bhatti/sdk/client"
import { type CallToolResult, McpServer, type ServerContext } from "@modelcontextprotocol/server"
import type { z } from "zod"
import { version } from "../lib/version.ts"
import { answer, type Call } from "./call.ts"
import { exec, processTool } from "./exec.ts"
import { file } from "./files.ts"
import { create, destroy, list, publish, snapshot } from "./sandboxes.ts"
import * as inputs from "./tool-inputs.ts"

type Registered = {
  description: string
  input: z.ZodObject
  work: (call: Call, input: never) => Promise<string>
  isReadOnly?: true
  isDestructive?: true
}

const tools: Readonly<Record<string, Registered>> = {
  create: {
    description:
      "Create a sandbox, an isolated Linux virtual machine, or fork one. Idle ones pause and wake by themselves.",
    input: inputs.createInput,
    work: create,
  },
  list: { description: "List sandboxes.", input: inputs.listInput, work: list, isReadOnly: true },
  exec: {
    description:
      "Run a command in a sandbox and return exit code, stdout and stderr. Long output is cut in the middle; process read returns the rest. Cancelling kills the command.",
    input: inputs.execInput,
    work: exec,
  },
  process: {
    description:
      "See processes that exec started, read their output by byte offset, wait for their end, send a signal or input.",
    input: inputs.processInput,
    work: processTool,
  },
  file: {
    description: "Read a text file by lines, write one as a whole, or list a directory.",
    input: inputs.fileInput,
    work: file,
  },
  snapshot: {
    description:
      "Keep a sandbox's disk and memory under a name, and resume it later as a new sandbox. To fork a running one, use create with from.",
    input: inputs.snapshotInput,
    work: snapshot,
  },
  publish: {
    description: "Give a port of a sandbox a public URL.",
    input: inputs.publishInput,
    work: publish,
  },
  destroy: {
    description: "Destroy a sandbox with its files for ever.",
    input: inputs.destroyInput,
    work: destroy,
    isDestructive: true,
  },
}

const instructions =
  "Each sandbox is a Linux virtual machine of its own. Create one, exec commands in it, destroy it at the end. An error has a code, a message and mostly the next step."

/** Calls that run now, for whoever ends the program. */
export type RunningCalls = Set<Promise<unknown>>

export function mcpServer(client: Client, running: RunningCalls): McpServer {
  const server = new McpServer({ name: "bhatti", version }, { instructions })
  for (const [name, tool] of Object.entries(tools)) {
    const annotations = {
      readOnlyHint: tool.isReadOnly ?? false,
      ...(!tool.isReadOnly && { destructiveHint: tool.isDestructive ?? false }),
    }
    const run = async (input: unknown, context: ServerContext): Promise<CallToolResult> => {
      const call = answer(client, context, (call) => tool.work(call, input as never))
      running.add(call)
      try {
        return await call
      } finally {
        running.delete(call)
      }
    }
    server.registerTool(
      name,
      { description: tool.description, inputSchema: tool.input, annotations },
      run as never,
    )
  }
  return server
}
