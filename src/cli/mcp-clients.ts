/**
 * Programs that speak MCP, and where each keeps its servers. The edit adds or replaces the one entry and keeps all
 * else; a file that it does not understand stays as it is. Loaded by `mcp install` alone.
 */

import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { whenMissing } from "../lib/missing-files.ts"

export type ServerEntry = { command: string; args: string[]; env?: Record<string, string> }
type Places = { home: string; isMac: boolean }
type McpClient = {
  file: (places: Places) => string
  /** The field of the file that has the servers, by name. */
  field: string
  format: "json" | "toml"
  /** Some name the transport in the entry. */
  hasType?: true
}

/** The directory of a graphical program's settings. */
const settings = ({ home, isMac }: Places) => join(home, isMac ? "Library/Application Support" : ".config")

export const mcpClients = {
  "claude-code": {
    file: ({ home }) => join(home, ".claude.json"),
    field: "mcpServers",
    format: "json",
    hasType: true,
  },
  "claude-desktop": {
    file: (places) => join(settings(places), "Claude/claude_desktop_config.json"),
    field: "mcpServers",
    format: "json",
  },
  cursor: { file: ({ home }) => join(home, ".cursor/mcp.json"), field: "mcpServers", format: "json" },
  vscode: {
    file: (places) => join(settings(places), "Code/User/mcp.json"),
    field: "servers",
    format: "json",
    hasType: true,
  },
  windsurf: {
    file: ({ home }) => join(home, ".codeium/windsurf/mcp_config.json"),
    field: "mcpServers",
    format: "json",
  },
  gemini: { file: ({ home }) => join(home, ".gemini/settings.json"), field: "mcpServers", format: "json" },
  codex: { file: ({ home }) => join(home, ".codex/config.toml"), field: "mcp_servers", format: "toml" },
} as const satisfies Record<string, McpClient>

export type McpClientName = keyof typeof mcpClients

export function isMcpClient(name: string): name is McpClientName {
  return Object.hasOwn(mcpClients, name)
}

export function fileOf(client: McpClientName, home: string): string {
  return mcpClients[client].file({ home, isMac: process.platform === "darwin" })
}

/** The entry alone, as the client's file has it. */
export function entryText(client: McpClientName, name: string, entry: ServerEntry): string {
  const { field, format }: McpClient = mcpClients[client]
  if (format === "toml") return tomlTable(field, name, entry)
  return `${JSON.stringify({ [field]: { [name]: entryFor(client, entry) } }, null, 2)}\n`
}

/** Returns the file's new text, or undefined if it has this entry already. */
export async function editedFile(
  client: McpClientName,
  path: string,
  name: string,
  entry: ServerEntry,
): Promise<string | undefined> {
  const text = (await readFile(path, "utf8").catch(whenMissing)) ?? ""
  const { field, format }: McpClient = mcpClients[client]
  const present = parsed(path, format, text)
  const servers = present[field] ?? {}
  if (!isObject(servers)) throw notUnderstood(path, `${field} is no table of servers`)
  const wanted = format === "toml" ? entry : entryFor(client, entry)
  const own = Object.hasOwn(servers, name) ? servers[name] : undefined
  if (own !== undefined && Bun.deepEquals(own, wanted)) return undefined
  if (format === "json") {
    const indent = text.match(/^([ \t]+)"/m)?.[1] ?? "  "
    return `${JSON.stringify({ ...present, [field]: { ...servers, [name]: wanted } }, null, indent)}\n`
  }
  // TOML is added to, and never rewritten: its comments would be lost.
  if (own !== undefined) throw notUnderstood(path, `it has another ${field}.${name}`)
  const edited = `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}${text === "" ? "" : "\n"}${tomlTable(field, name, entry)}`
  const isRight = Bun.deepEquals(tomlOf(edited), { ...present, [field]: { ...servers, [name]: wanted } })
  if (!isRight) throw notUnderstood(path, `${field} cannot be added to`)
  return edited
}

function entryFor(client: McpClientName, entry: ServerEntry): ServerEntry & { type?: "stdio" } {
  const { hasType }: McpClient = mcpClients[client]
  return hasType ? { type: "stdio", ...entry } : entry
}

function parsed(path: string, format: "json" | "toml", text: string): Record<string, unknown> {
  if (text.trim() === "") return {}
  let value: unknown
  try {
    value = format === "json" ? JSON.parse(text) : Bun.TOML.parse(text)
  } catch (cause) {
    const words = format === "json" ? "it is not plain JSON (it may have comments)" : "it is not TOML"
    throw notUnderstood(path, words, cause)
  }
  if (!isObject(value)) throw notUnderstood(path, "it has no fields")
  return value
}

function tomlOf(text: string): unknown {
  try {
    return Bun.TOML.parse(text)
  } catch {
    return undefined
  }
}

function notUnderstood(path: string, words: string, cause?: unknown): AppError {
  return new AppError("invalid", `${path} was not changed: ${words}`, {
    cause,
    hint: "see the entry with --print, and add it yourself",
  })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/** Strings of JSON are strings of TOML. */
function tomlTable(field: string, name: string, { command, args, env }: ServerEntry): string {
  const lines = [
    `[${field}.${JSON.stringify(name)}]`,
    `command = ${JSON.stringify(command)}`,
    `args = [${args.map((one) => JSON.stringify(one)).join(", ")}]`,
  ]
  if (env) {
    const pairs = Object.entries(env).map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
    lines.push(`env = { ${pairs.join(", ")} }`)
  }
  return `${lines.join("\n")}\n`
}
