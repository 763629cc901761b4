/**
 * Every command, in the order of `bhatti --help`. A command is loaded only when it runs.
 *
 * Adding a command: 1. its file in this folder; 2. an entry here: summary, loader, other names; 3. `bun run generate`
 * for docs/cli.md; 4. a test in test/cli.
 */

import type { Command, CommandEntry, CommandTable } from "../command.ts"

type Row = [summary: string, load: () => Promise<Command>, ...aliases: string[]]

export const commands: readonly CommandEntry[] = [
  ...section("Sandboxes", {
    create: ["Create a sandbox", async () => (await import("./create.ts")).create],
    run: ["Run an image's program in a new sandbox", async () => (await import("./run.ts")).run],
    list: ["List your sandboxes", async () => (await import("./list.ts")).list, "ls"],
    inspect: ["Show one sandbox", async () => (await import("./inspect.ts")).inspect, "info"],
    exec: ["Run a command in a sandbox", async () => (await import("./exec.ts")).exec],
    shell: [
      "Open a terminal in a sandbox, or go back to one",
      async () => (await import("./shell.ts")).shell,
      "sh",
    ],
    attach: [
      "Type into a process that runs in a sandbox, or watch it",
      async () => (await import("./attach.ts")).attach,
    ],
    wait: ["Wait until a process of a sandbox has ended", async () => (await import("./wait.ts")).wait],
    ps: ["List the sessions and kept commands of a sandbox", async () => (await import("./ps.ts")).ps],
    logs: [
      "Print the output of the init script or another process",
      async () => (await import("./logs.ts")).logs,
    ],
    "service list": [
      "List the services of a sandbox",
      async () => (await import("./services-list.ts")).serviceList,
      "service ls",
    ],
    "service start": [
      "Start services of a sandbox",
      async () => (await import("./services-control.ts")).serviceStart,
    ],
    "service stop": [
      "Stop services of a sandbox",
      async () => (await import("./services-control.ts")).serviceStop,
    ],
    "service restart": [
      "Restart services of a sandbox",
      async () => (await import("./services-control.ts")).serviceRestart,
    ],
    kill: ["Send a signal to a process", async () => (await import("./kill.ts")).kill],
    stop: [
      "Write a sandbox to disk and free the host's memory",
      async () => (await import("./stop.ts")).stop,
    ],
    repair: ["Repair a sandbox's file system", async () => (await import("./repair.ts")).repair],
    start: ["Start a stopped sandbox", async () => (await import("./start.ts")).start],
    restart: [
      "End all programs in a sandbox and boot it from its disk",
      async () => (await import("./restart.ts")).restart,
    ],
    edit: [
      "Rename a sandbox, change its labels or when it is paused",
      async () => (await import("./edit.ts")).edit,
    ],
    why: [
      "Explain why a sandbox is hot, warm or cold, and when that changes",
      async () => (await import("./why.ts")).why,
    ],
    events: [
      "List what happened to your sandboxes, when and why",
      async () => (await import("./events.ts")).events,
    ],
    destroy: ["Destroy sandboxes and their disks", async () => (await import("./destroy.ts")).destroy, "rm"],
  }),
  ...section("Files", {
    cp: ["Copy files and directories from and to a sandbox", async () => (await import("./cp.ts")).cp],
    "file read": ["Print a file of a sandbox", async () => (await import("./file-read.ts")).fileRead],
    "file write": [
      "Write a file of a sandbox from standard input or a local file",
      async () => (await import("./file-write.ts")).fileWrite,
    ],
    "file ls": ["List a directory of a sandbox", async () => (await import("./file-ls.ts")).fileLs],
    "file stat": [
      "Show the attributes of a file of a sandbox",
      async () => (await import("./file-stat.ts")).fileStat,
    ],
    "file attr": [
      "Show or change the extended attributes of a file of a sandbox",
      async () => (await import("./file-attr.ts")).fileAttr,
    ],
    "file watch": [
      "Show the changes in a directory of a sandbox as they happen",
      async () => (await import("./file-watch.ts")).fileWatch,
    ],
    "file mkdir": ["Make directories in a sandbox", async () => (await import("./file-mkdir.ts")).fileMkdir],
    "file mv": ["Move or rename a file of a sandbox", async () => (await import("./file-mv.ts")).fileMv],
    "file rm": ["Remove files of a sandbox", async () => (await import("./file-rm.ts")).fileRm],
  }),
  ...section("Published ports", {
    publish: ["Give a port of a sandbox a public URL", async () => (await import("./publish.ts")).publish],
    unpublish: ["Take a port's public URL away", async () => (await import("./unpublish.ts")).unpublish],
    ports: [
      "List the ports that something in a sandbox listens on",
      async () => (await import("./ports.ts")).ports,
    ],
  }),
  ...section("Snapshots", {
    "snapshot create": [
      "Keep memory and disk of a sandbox as they are now",
      async () => (await import("./snapshot-create.ts")).snapshotCreate,
    ],
    "snapshot list": [
      "List your snapshots",
      async () => (await import("./snapshot-list.ts")).snapshotList,
      "snapshot ls",
    ],
    "snapshot resume": [
      "Make a sandbox that continues from a snapshot",
      async () => (await import("./snapshot-resume.ts")).snapshotResume,
    ],
    "snapshot delete": [
      "Delete snapshots",
      async () => (await import("./snapshot-delete.ts")).snapshotDelete,
      "snapshot rm",
    ],
  }),
  ...section("Images", {
    "image list": [
      "List the images that sandboxes can be made from",
      async () => (await import("./image-list.ts")).imageList,
      "image ls",
    ],
    "image pull": ["Pull an image from a registry", async () => (await import("./image-pull.ts")).imagePull],
    "image install": [
      "Have the host make one of its own images",
      async () => (await import("./image-install.ts")).imageInstall,
    ],
    "image import": [
      "Make an image of an archive",
      async () => (await import("./image-import.ts")).imageImport,
    ],
    "image save": ["Make an image of a sandbox", async () => (await import("./image-save.ts")).imageSave],
    "image export": [
      "Write an image as an archive",
      async () => (await import("./image-export.ts")).imageExport,
    ],
    "image push": ["Push an image to a registry", async () => (await import("./image-push.ts")).imagePush],
    "image inspect": ["Show one image", async () => (await import("./image-inspect.ts")).imageInspect],
    "image build": [
      "Build an image of a Dockerfile",
      async () => (await import("./image-build.ts")).imageBuild,
    ],
    "image tag": ["Give an image a further name", async () => (await import("./image-tag.ts")).imageTag],
    "image delete": [
      "Delete images",
      async () => (await import("./image-delete.ts")).imageDelete,
      "image rm",
    ],
    "image prune": [
      "Delete your images that nothing was made from",
      async () => (await import("./image-prune.ts")).imagePrune,
    ],
    "registry login": [
      "Store a login for pulls from a registry",
      async () => (await import("./registry-login.ts")).registryLogin,
    ],
    "registry logout": ["Delete a login", async () => (await import("./registry-logout.ts")).registryLogout],
    "registry list": [
      "List your logins at registries",
      async () => (await import("./registry-list.ts")).registryList,
      "registry ls",
    ],
    "task list": [
      "List your pulls, imports and builds",
      async () => (await import("./task-list.ts")).taskList,
      "task ls",
    ],
    "task wait": ["Wait until a task has ended", async () => (await import("./task-wait.ts")).taskWait],
    "task cancel": ["Cancel tasks", async () => (await import("./task-cancel.ts")).taskCancel],
  }),
  ...section("Secrets", {
    "secret set": ["Set a secret", async () => (await import("./secret-set.ts")).secretSet],
    "secret list": [
      "List the names of your secrets",
      async () => (await import("./secret-list.ts")).secretList,
      "secret ls",
    ],
    "secret delete": [
      "Delete a secret",
      async () => (await import("./secret-delete.ts")).secretDelete,
      "secret rm",
    ],
  }),
  ...section("Keys", {
    "key create": [
      "Make a key that may do less than yours, for an agent",
      async () => (await import("./key-create.ts")).keyCreate,
    ],
    "key list": ["List your keys", async () => (await import("./key-list.ts")).keyList, "key ls"],
    "key revoke": [
      "Revoke a key; what is open with it ends",
      async () => (await import("./key-revoke.ts")).keyRevoke,
      "key rm",
    ],
  }),
  ...section("Agents", {
    mcp: [
      "Serve tools for a model over MCP, on standard input and output",
      async () => (await import("./mcp.ts")).mcp,
    ],
    "mcp install": [
      "Add bhatti's tools to a program that speaks MCP",
      async () => (await import("./mcp-install.ts")).mcpInstall,
    ],
  }),
  ...section("This program", {
    setup: ["Save the daemon's address and your API key", async () => (await import("./setup.ts")).setup],
    doctor: [
      "Check this host and the connection, and say how to fix what is wrong",
      async () => (await import("./doctor.ts")).doctor,
    ],
    completion: [
      "Print completion for bash, zsh or fish",
      async () => (await import("./completion.ts")).completion,
    ],
    version: [
      "Show the version and the daemon's address",
      async () => (await import("./version.ts")).version,
    ],
    help: ["Show help for a command", async () => (await import("./help.ts")).help],
  }),
  ...section("Operator (on the host itself)", {
    serve: ["Run the daemon", async () => (await import("./serve.ts")).serve],
    init: [
      "Prepare this host: data directory, keys, the admin user",
      async () => (await import("./init.ts")).init,
    ],
    "admin events": [
      "List what happened to all users' sandboxes and to the host",
      async () => (await import("./admin-events.ts")).adminEvents,
    ],
    "admin backup": [
      "Copy the whole installation, while it runs",
      async () => (await import("./admin-backup.ts")).adminBackup,
    ],
    "admin restore": [
      "Make a data directory from a backup",
      async () => (await import("./admin-restore.ts")).adminRestore,
    ],
    "admin recover": [
      "Give sandboxes back to a data directory that has lost its database",
      async () => (await import("./admin-recover.ts")).adminRecover,
    ],
    "user create": [
      "Create a user and show its API key",
      async () => (await import("./user-create.ts")).userCreate,
    ],
    "user list": [
      "List the users and their limits",
      async () => (await import("./user-list.ts")).userList,
      "user ls",
    ],
    "user edit": ["Change a user's limits", async () => (await import("./user-edit.ts")).userEdit],
    "user rotate-key": [
      "Give a user another API key; the old one stops working",
      async () => (await import("./user-rotate-key.ts")).userRotateKey,
    ],
    "user delete": [
      "Delete a user that has no sandboxes",
      async () => (await import("./user-delete.ts")).userDelete,
      "user rm",
    ],
    "image share": [
      "Share a user's image with other users",
      async () => (await import("./image-share.ts")).imageShare,
    ],
    "image unshare": [
      "End the sharing of a user's image",
      async () => (await import("./image-share.ts")).imageUnshare,
    ],
  }),
]

const hidden = section("This program", {
  __complete: ["Candidates for the word being typed", async () => (await import("./complete.ts")).complete],
})

export const table: CommandTable = { shown: commands, hidden }

function section(name: CommandEntry["section"], rows: Record<string, Row>): CommandEntry[] {
  return Object.entries(rows).map(([command, [summary, load, ...aliases]]) => ({
    name: command,
    ...(aliases.length > 0 && { aliases }),
    summary,
    section: name,
    load,
  }))
}
