/**
 * Every command, in the order of `bhatti --help`. A command is loaded only when it runs.
 *
 * Adding a command: 1. its file in this folder; 2. an entry here; 3. `bun run generate` for docs/cli.md; 4. a test
 * in test/cli.
 */

import type { CommandEntry, CommandTable } from "../command.ts"

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
    name: "shell",
    aliases: ["sh"],
    summary: "Open a terminal in a sandbox, or go back to one",
    section: "Sandboxes",
    load: async () => (await import("./shell.ts")).shell,
  },
  {
    name: "ps",
    summary: "List the sessions of a sandbox",
    section: "Sandboxes",
    load: async () => (await import("./ps.ts")).ps,
  },
  {
    name: "logs",
    summary: "Print the output of the init script or another session",
    section: "Sandboxes",
    load: async () => (await import("./logs.ts")).logs,
  },
  {
    name: "kill",
    summary: "Send a signal to a session",
    section: "Sandboxes",
    load: async () => (await import("./kill.ts")).kill,
  },
  {
    name: "stop",
    summary: "Write a sandbox to disk and free the host's memory",
    section: "Sandboxes",
    load: async () => (await import("./stop.ts")).stop,
  },
  {
    name: "repair",
    summary: "Repair a sandbox's file system",
    section: "Sandboxes",
    load: async () => (await import("./repair.ts")).repair,
  },
  {
    name: "start",
    summary: "Start a stopped sandbox",
    section: "Sandboxes",
    load: async () => (await import("./start.ts")).start,
  },
  {
    name: "restart",
    summary: "End all programs in a sandbox and boot it from its disk",
    section: "Sandboxes",
    load: async () => (await import("./restart.ts")).restart,
  },
  {
    name: "edit",
    summary: "Rename a sandbox, change its labels or when it is paused",
    section: "Sandboxes",
    load: async () => (await import("./edit.ts")).edit,
  },
  {
    name: "why",
    summary: "Explain why a sandbox is hot, warm or cold, and when that changes",
    section: "Sandboxes",
    load: async () => (await import("./why.ts")).why,
  },
  {
    name: "events",
    summary: "List what happened to your sandboxes, when and why",
    section: "Sandboxes",
    load: async () => (await import("./events.ts")).events,
  },
  {
    name: "destroy",
    aliases: ["rm"],
    summary: "Destroy sandboxes and their disks",
    section: "Sandboxes",
    load: async () => (await import("./destroy.ts")).destroy,
  },
  {
    name: "cp",
    summary: "Copy files and directories from and to a sandbox",
    section: "Files",
    load: async () => (await import("./cp.ts")).cp,
  },
  {
    name: "file read",
    summary: "Print a file of a sandbox",
    section: "Files",
    load: async () => (await import("./file-read.ts")).fileRead,
  },
  {
    name: "file write",
    summary: "Write a file of a sandbox from standard input or a local file",
    section: "Files",
    load: async () => (await import("./file-write.ts")).fileWrite,
  },
  {
    name: "file ls",
    summary: "List a directory of a sandbox",
    section: "Files",
    load: async () => (await import("./file-ls.ts")).fileLs,
  },
  {
    name: "file stat",
    summary: "Show the attributes of a file of a sandbox",
    section: "Files",
    load: async () => (await import("./file-stat.ts")).fileStat,
  },
  {
    name: "file mkdir",
    summary: "Make directories in a sandbox",
    section: "Files",
    load: async () => (await import("./file-mkdir.ts")).fileMkdir,
  },
  {
    name: "file mv",
    summary: "Move or rename a file of a sandbox",
    section: "Files",
    load: async () => (await import("./file-mv.ts")).fileMv,
  },
  {
    name: "file rm",
    summary: "Remove files of a sandbox",
    section: "Files",
    load: async () => (await import("./file-rm.ts")).fileRm,
  },
  {
    name: "publish",
    summary: "Give a port of a sandbox a public URL",
    section: "Published ports",
    load: async () => (await import("./publish.ts")).publish,
  },
  {
    name: "unpublish",
    summary: "Take a port's public URL away",
    section: "Published ports",
    load: async () => (await import("./unpublish.ts")).unpublish,
  },
  {
    name: "ports",
    summary: "List the ports that something in a sandbox listens on",
    section: "Published ports",
    load: async () => (await import("./ports.ts")).ports,
  },
  {
    name: "snapshot create",
    summary: "Keep memory and disk of a sandbox as they are now",
    section: "Snapshots",
    load: async () => (await import("./snapshot-create.ts")).snapshotCreate,
  },
  {
    name: "snapshot list",
    aliases: ["snapshot ls"],
    summary: "List your snapshots",
    section: "Snapshots",
    load: async () => (await import("./snapshot-list.ts")).snapshotList,
  },
  {
    name: "snapshot resume",
    summary: "Make a sandbox that continues from a snapshot",
    section: "Snapshots",
    load: async () => (await import("./snapshot-resume.ts")).snapshotResume,
  },
  {
    name: "snapshot delete",
    aliases: ["snapshot rm"],
    summary: "Delete snapshots",
    section: "Snapshots",
    load: async () => (await import("./snapshot-delete.ts")).snapshotDelete,
  },
  {
    name: "image list",
    aliases: ["image ls"],
    summary: "List the images that sandboxes can be made from",
    section: "Images",
    load: async () => (await import("./image-list.ts")).imageList,
  },
  {
    name: "secret set",
    summary: "Set a secret",
    section: "Secrets",
    load: async () => (await import("./secret-set.ts")).secretSet,
  },
  {
    name: "secret list",
    aliases: ["secret ls"],
    summary: "List the names of your secrets",
    section: "Secrets",
    load: async () => (await import("./secret-list.ts")).secretList,
  },
  {
    name: "secret delete",
    aliases: ["secret rm"],
    summary: "Delete a secret",
    section: "Secrets",
    load: async () => (await import("./secret-delete.ts")).secretDelete,
  },
  {
    name: "setup",
    summary: "Save the daemon's address and your API key",
    section: "This program",
    load: async () => (await import("./setup.ts")).setup,
  },
  {
    name: "doctor",
    summary: "Check this host and the connection, and say how to fix what is wrong",
    section: "This program",
    load: async () => (await import("./doctor.ts")).doctor,
  },
  {
    name: "completion",
    summary: "Print completion for bash, zsh or fish",
    section: "This program",
    load: async () => (await import("./completion.ts")).completion,
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
    name: "admin events",
    summary: "List what happened to all users' sandboxes and to the host",
    section: "Operator (on the host itself)",
    load: async () => (await import("./admin-events.ts")).adminEvents,
  },
  {
    name: "admin backup",
    summary: "Copy the whole installation, while it runs",
    section: "Operator (on the host itself)",
    load: async () => (await import("./admin-backup.ts")).adminBackup,
  },
  {
    name: "admin restore",
    summary: "Make a data directory from a backup",
    section: "Operator (on the host itself)",
    load: async () => (await import("./admin-restore.ts")).adminRestore,
  },
  {
    name: "admin recover",
    summary: "Give sandboxes back to a data directory that has lost its database",
    section: "Operator (on the host itself)",
    load: async () => (await import("./admin-recover.ts")).adminRecover,
  },
  {
    name: "user create",
    summary: "Create a user and show its API key",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-create.ts")).userCreate,
  },
  {
    name: "user list",
    aliases: ["user ls"],
    summary: "List the users and their limits",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-list.ts")).userList,
  },
  {
    name: "user edit",
    summary: "Change a user's limits",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-edit.ts")).userEdit,
  },
  {
    name: "user rotate-key",
    summary: "Give a user another API key; the old one stops working",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-rotate-key.ts")).userRotateKey,
  },
  {
    name: "user delete",
    aliases: ["user rm"],
    summary: "Delete a user that has no sandboxes",
    section: "Operator (on the host itself)",
    load: async () => (await import("./user-delete.ts")).userDelete,
  },
]

const hidden: readonly CommandEntry[] = [
  {
    name: "__complete",
    summary: "Candidates for the word being typed",
    section: "This program",
    load: async () => (await import("./complete.ts")).complete,
  },
]

export const table: CommandTable = { shown: commands, hidden }
