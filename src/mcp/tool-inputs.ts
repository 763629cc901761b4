/**
 * The inputs of the tools, as models see them. Every client sends the whole listing with each conversation, so each
 * word here is paid for again and again; a test bounds its size.
 */

import { SignalName } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import { z } from "zod"

const sandbox = z.string().min(1).describe("Its name or id")
const seconds = (max: number) => z.number().min(0).max(max).optional()
const place = z.int().min(0).max(Number.MAX_SAFE_INTEGER).optional()

export const createInput = z.object({
  name: z.string().optional().describe("Default: generated"),
  from: z
    .string()
    .optional()
    .describe("Fork this sandbox: a copy of its disk, memory and processes as they are now"),
  image: z.string().optional().describe("Such as debian:12; default: the host's image with common tools"),
  cpus: z.int().min(1).max(limits.cpusMax).optional(),
  memory_mb: z.int().min(limits.memoryMibMin).max(limits.memoryMibMax).optional(),
  env: z.record(z.string(), z.string()).optional().describe("Environment of every command"),
  ttl_sec: seconds(limits.ttlSecMax).describe("Time to live"),
  on_ttl: z.enum(["pause", "destroy", "keep"]).optional(),
})
export type CreateInput = z.infer<typeof createInput>

export const listInput = z.object({
  sandbox: sandbox.optional().describe("Only this one, with details"),
})
export type ListInput = z.infer<typeof listInput>

export const execInput = z.object({
  sandbox,
  command: z.string().min(1).describe("Shell script for sh -c"),
  cwd: z.string().optional().describe("Default: /workspace or the image's"),
  user: z.string().optional().describe("Default: the image's; sudo gives root"),
  env: z.record(z.string(), z.string()).optional(),
  timeout_sec: seconds(limits.execTimeoutSecMax).describe("Kill it then; default 300, in background none"),
  background: z.boolean().optional().describe("Return its process id at once; it runs on"),
  stdin: z.boolean().optional().describe("Keep its input open for process write"),
})
export type ExecInput = z.infer<typeof execInput>

export const processInput = z.object({
  sandbox,
  action: z.enum(["list", "read", "wait", "signal", "write"]),
  process: z.string().optional().describe("Process id; not for list"),
  stream: z.enum(["stdout", "stderr"]).optional().describe("read: default stdout"),
  offset: place.describe("read: first byte; default: the oldest that is kept"),
  limit: place.describe("read: at most so many bytes"),
  timeout_sec: seconds(limits.processWaitSecMax).describe("wait: at most so long; default 30"),
  signal: SignalName.optional().describe("signal: default TERM"),
  text: z.string().optional().describe("write: input"),
  end: z.boolean().optional().describe("write: end the input behind it"),
})
export type ProcessInput = z.infer<typeof processInput>

export const fileInput = z.object({
  sandbox,
  action: z.enum(["read", "write", "list"]),
  path: z.string().min(1).describe("Absolute path"),
  content: z.string().optional().describe("write: the whole new text"),
  mode: z.string().optional().describe("write: octal, such as 0755"),
  line: place.describe("read: first line, from 1"),
  lines: place.describe("read: at most so many"),
})
export type FileInput = z.infer<typeof fileInput>

export const snapshotInput = z.object({
  action: z.enum(["create", "list", "resume", "delete"]),
  name: z.string().optional().describe("Name of the snapshot; not for list"),
  sandbox: z
    .string()
    .optional()
    .describe("create: its source; resume: name of the new sandbox, default generated"),
})
export type SnapshotInput = z.infer<typeof snapshotInput>

export const publishInput = z.object({
  sandbox,
  port: z.int().min(1).max(limits.portMax),
  alias: z.string().optional().describe("First part of the host name; default: hard to guess"),
})
export type PublishInput = z.infer<typeof publishInput>

export const destroyInput = z.object({ sandbox })
export type DestroyInput = z.infer<typeof destroyInput>
