/**
 * Every command, in the order of `bhatti --help`. A command is loaded only when it runs.
 *
 * Adding one: 1. its file in this folder; 2. an entry here; 3. `bun run generate` for docs/cli.md; 4. a test in test/cli.
 */

import type { Command } from "../command.ts"

export type CommandEntry = {
  /** One word, or two for a command of a group: `user create`. */
  name: string
  aliases?: readonly string[]
  summary: string
  section: "Sandboxes" | "This program" | "Operator (on the host itself)"
  load: () => Promise<Command>
}

export const commands: readonly CommandEntry[] = [
  {
    name: "create",
    summary: "Create a sandbox",
    section: "Sandboxes",
    load: async () => (await import("./create.ts")).create,
  },
  {
    name: "list",
    aliases: ["ls"],
    summary: "List your sandboxes",
    section: "Sandboxes",
    load: async () => (await import("./list.ts")).list,
  },
  {
    name: "inspect",
    aliases: ["info"],
    summary: "Show one sandbox",
    section: "Sandboxes",
    load: async () => (await import("./inspect.ts")).inspect,
  },
  {
    name: "exec",
    summary: "Run a command in a sandbox",
    section: "Sandboxes",
    load: async () => (await import("./exec.ts")).exec,
  },
  {
    name: "destroy",
    aliases: ["rm"],
    summary: "Destroy sandboxes and their disks",
    section: "Sandboxes",
    load: async () => (await import("./destroy.ts")).destroy,
  },
  {
    name: "version",
    summary: "Show the version and the daemon's address",
    section: "This program",
    load: async () => (await import("./version.ts")).version,
  },
  {
    name: "help",
    summary: "Show help for a command",
    section: "This program",
    load: async () => (await import("./help.ts")).help,
  },
  {
    name: "serve",
    summary: "Run the daemon",
    section: "Operator (on the host itself)",
    load: async () => (await import("./serve.ts")).serve,
  },
  {
    name: "init",
    summary: "Prepare this host: data directory, keys, the admin user",
    section: "Operator (on the host itself)",
    load: async () => (await import("./init.ts")).init,
  },
  {
    name: "user create",
    summary: "Create a user and show its API key",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-create.ts")).userCreate,
  },
  {
    name: "user list",
    summary: "List the users and their limits",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-list.ts")).userList,
  },
  {
    name: "user rotate-key",
    summary: "Give a user another API key; the old one stops working",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-rotate-key.ts")).userRotateKey,
  },
  {
    name: "user delete",
    summary: "Delete a user that has no sandboxes",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-delete.ts")).userDelete,
  },
]
