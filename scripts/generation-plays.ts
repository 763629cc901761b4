/** The host's side of the conversations that `record-generation.ts` records: each operation, as hosts use it. */

/** Their names begin with it. */
const directory = "/tmp/lohar-generation"
const user = "root"
const port = 41_773

/** Texts that another machine replaces by its own when it plays the conversations again. */
export const values = {
  directory,
  user,
  port,
  personalise: {
    op: "personalise",
    entropy: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    unix_ns: "1700000000000000000",
    hostname: "dev",
    machine_id: "0123456789abcdef0123456789abcdef",
    env: { SANDBOX: "yes" },
    network: null,
    grow_disk: false,
  },
}

/** Files below the directory at the begin of each conversation. */
export const files = { "hello.txt": "hello\n", "tree/a.txt": "a\n", "tree/b/c.txt": "cc\n" }

/** Stream 0 unless another one is given. `until` waits for a message, the close, or a text in the data. */
export type Act = { stream?: number } & (
  | { open: object | string }
  /** A request about the watch that was answered last. */
  | { watched: object }
  | { message: object }
  | { data: string | Uint8Array }
  | { end: true }
  | { close: true }
  | { until: string }
)

export type Play = {
  name: string
  acts: Act[]
  /** The agent was not personalised before. */
  isFresh?: boolean
  /** The guest's bytes differ each time, such as by times in an archive. */
  dataVaries?: boolean
  /** The first generation that has the operation. */
  since?: number
}

const offsets = { stdout: 0, stderr: 0 }
const tty = { rows: 24, cols: 80, term: "xterm" }
const size = { rows: 30, cols: 100 }
const ask = (name: string, open: object): Play => ({ name, acts: [{ open }, { until: "close" }] })
const command = (argv: string[], more: object = {}) => ({ op: "exec", argv, user, cwd: "/", ...more })
const session = (argv: string[], name: string, attach: boolean) => ({
  ...{ argv, user, cwd: "/", name, tty, attach },
  op: "session_open",
})

/** A tar stream of one file, as ustar has it. */
function archive(): Uint8Array {
  const bytes = Buffer.alloc(10_240)
  const put = (at: number, text: string) => void bytes.write(text, at, "latin1")
  put(0, "new/d.txt")
  put(100, "0000644\0")
  put(108, "0000000\0")
  put(116, "0000000\0")
  put(124, "00000000004\0")
  put(136, "14522770400\0")
  put(148, "        ")
  put(156, "0")
  put(257, "ustar\x0000")
  let sum = 0
  for (const byte of bytes.subarray(0, 512)) sum += byte
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `)
  put(512, "ddd\n")
  return bytes
}

const start = (argv: string[], more: object = {}) => ({
  ...{ op: "process_start", argv, user, cwd: "/", on_disconnect: "kill", attach: true },
  ...more,
})

function since(generation: number, all: Play[]): Play[] {
  return all.map((play) => ({ ...play, since: generation }))
}

/** The operations of generation 3. */
const ofProcesses = since(3, [
  ask("a process", start(["sh", "-c", "echo $SANDBOX; echo err >&2; exit 7"])),
  ask("a process of no program", start(["/no/such/program"])),
  {
    name: "a process with input, which a signal ends",
    acts: [
      { open: start(["sh", "-c", "cat; echo end; sleep 100"], { stdin: true, env: { KEY: "value" } }) },
      { until: "message" },
      { data: "in\n" },
      { until: "in\n" },
      { end: true },
      { until: "end\n" },
      { message: { signal: "KILL", scope: "session", by: "client" } },
      { until: "close" },
    ],
  },
  {
    name: "a process by its key",
    acts: [
      {
        open: start(["sh", "-c", "echo once"], {
          ...{ key: "k1", elapsed_ms: 0, on_disconnect: "keep", retain_ms: 60_000 },
          ...{ grace_ms: 1000, ring_bytes: 65_536, timeout_ms: 60_000 },
        }),
      },
      { until: "close" },
      {
        stream: 1,
        open: start(["sh", "-c", "echo once"], {
          ...{ key: "k1", elapsed_ms: 5, from: { stdout: 2, stderr: 0 }, on_disconnect: "keep" },
        }),
      },
      { stream: 1, until: "close" },
      { stream: 2, open: start(["sh", "-c", "echo twice"], { key: "k1", on_disconnect: "keep" }) },
      { stream: 2, until: "close" },
      { stream: 3, open: { op: "process_list" } },
      { stream: 3, until: "close" },
      { stream: 4, open: { op: "process_get", process: "p1" } },
      { stream: 4, until: "close" },
      { stream: 5, open: { op: "process_forget", process: "p1" } },
      { stream: 5, until: "close" },
      { stream: 6, open: { op: "process_get", process: "p1" } },
      { stream: 6, until: "close" },
    ],
  },
  {
    name: "a process with a terminal, seen by two",
    acts: [
      {
        open: start(["cat"], { stdin: true, tty, name: "kept", on_disconnect: "keep", retain_ms: 60_000 }),
      },
      { until: "message" },
      { data: "first\r" },
      { until: "first\r\nfirst\r\n" },
      { stream: 1, open: { op: "process_attach", process: "kept", mode: "watch", from: offsets } },
      { stream: 1, until: "first\r\nfirst\r\n" },
      { close: true },
      { until: "close" },
      { stream: 2, open: { op: "process_resize", process: "kept", ...size } },
      { stream: 2, until: "close" },
      { stream: 3, open: { op: "process_input", process: "kept", at: 6 } },
      { stream: 3, data: "second\r" },
      { stream: 3, end: true },
      { stream: 3, until: "close" },
      { stream: 1, until: "second\r\nsecond\r\n" },
      { stream: 4, open: { op: "process_attach", process: "kept", mode: "drive", tty: size, from: offsets } },
      { stream: 4, until: "second\r\nsecond\r\n" },
      { stream: 5, open: { op: "process_wait", process: "kept" } },
      {
        stream: 6,
        open: { op: "process_signal", process: "kept", signal: "KILL", scope: "session", by: "client" },
      },
      { stream: 6, until: "close" },
      { stream: 4, until: "close" },
      { stream: 1, until: "close" },
      { stream: 5, until: "close" },
      { stream: 7, open: { op: "process_attach", process: "kept", mode: "watch", follow: false } },
      { stream: 7, until: "close" },
    ],
  },
  {
    name: "the end of a process that nobody is attached to",
    acts: [
      { open: { op: "watch" } },
      {
        stream: 1,
        open: start(["sh", "-c", "sleep 0.3; kill -9 $$"], { on_disconnect: "keep", attach: false }),
      },
      { stream: 1, until: "close" },
      { until: "message" },
      { stream: 2, open: { op: "quiesce" } },
      { stream: 2, until: "close" },
      { until: "close" },
    ],
  },
  {
    name: "file_watch",
    acts: [
      { open: { op: "file_watch", path: directory, recursive: true } },
      { until: "close" },
      { stream: 1, open: { op: "file_mkdir", path: `${directory}/seen`, parents: false, mode: "0755" } },
      { stream: 1, until: "close" },
      { stream: 2, watched: { op: "file_watch_read", after: 0, wait: true } },
      { stream: 2, until: "close" },
      { stream: 3, watched: { op: "file_watch_remove" } },
      { stream: 3, until: "close" },
    ],
  },
  ask("clone_start", { op: "clone_start" }),
  {
    name: "file_attributes",
    acts: [
      {
        open: {
          ...{ op: "file_attributes", path: `${directory}/hello.txt` },
          ...{ set: { "user.origin": "bmV0" }, remove: ["user.none"] },
        },
      },
      { until: "close" },
      { stream: 1, open: { op: "file_stat", path: `${directory}/hello.txt` } },
      { stream: 1, until: "close" },
    ],
  },
  {
    name: "services",
    acts: [
      {
        open: {
          op: "service_start",
          services: [
            { name: "db", argv: ["sleep", "100"], user, cwd: "/", restart: "always", after: [] },
            { name: "web", argv: ["sleep", "100"], user, cwd: "/", restart: "on-failure", after: ["db"] },
          ],
        },
      },
      { until: "close" },
      { stream: 1, open: { op: "service_list" } },
      { stream: 1, until: "close" },
      { stream: 2, open: { op: "service_control", service: "web", action: "stop" } },
      { stream: 2, until: "close" },
      { stream: 3, open: { op: "service_control", service: "db", action: "stop" } },
      { stream: 3, until: "close" },
    ],
  },
])

export const plays: Play[] = [
  { ...ask("ping", { op: "ping" }), isFresh: true },
  { ...ask("a command before the identity", command(["true"])), isFresh: true },
  { ...ask("personalise", values.personalise), isFresh: true },
  ask("refresh", { op: "refresh", entropy: values.personalise.entropy, unix_ns: "1700000000000000001" }),
  ask("exec", command(["sh", "-c", "echo $SANDBOX; echo err >&2; exit 7"])),
  {
    name: "exec with input",
    acts: [
      { open: command(["cat"], { stdin: true, env: { KEY: "value" } }) },
      { until: "message" },
      { data: "in\n" },
      { until: "in\n" },
      { end: true },
      { until: "close" },
    ],
  },
  {
    name: "exec with a signal",
    acts: [
      { open: command(["sleep", "100"]) },
      { until: "message" },
      { message: { signal: "TERM" } },
      { until: "close" },
    ],
  },
  {
    name: "exec that its client leaves",
    acts: [{ open: command(["sleep", "100"]) }, { until: "message" }, { close: true }, { until: "close" }],
  },
  {
    name: "exec with a terminal",
    acts: [
      { open: command(["sh", "-c", "stty size; read line; stty size"], { stdin: true, tty }) },
      { until: "24 80\r\n" },
      { message: { resize: { rows: 40, cols: 120 } } },
      { data: "go\n" },
      { until: "close" },
    ],
  },
  ask("exec of no program", command(["/no/such/program"])),
  ask("exec of a file that is none", command(["/etc/passwd"])),
  ask("exec of no user", { ...command(["true"]), user: "no-such-user" }),
  ask("exec in no directory", { ...command(["true"]), cwd: "/no/such/directory" }),
  {
    name: "a session",
    acts: [
      { open: session(["cat"], "kept", true) },
      { until: "message" },
      { data: "first\r" },
      { until: "first\r\nfirst\r\n" },
      { close: true },
      { until: "close" },
      { stream: 1, open: { op: "session_attach", session: "kept", tty: size } },
      { stream: 1, until: "\u001b8" },
      { stream: 2, open: { op: "sessions" } },
      { stream: 2, until: "close" },
      { stream: 3, open: { op: "session_read", session: "kept" } },
      { stream: 3, until: "close" },
      { stream: 4, open: { op: "session_attach", session: "kept", tty: size } },
      { stream: 1, until: "close" },
      { stream: 4, until: "first\r\nfirst\r\n" },
      { stream: 5, open: { op: "session_kill", session: "kept", signal: "KILL" } },
      { stream: 4, until: "close" },
    ],
  },
  {
    name: "the end of a session that nobody is attached to",
    acts: [
      { open: { op: "watch" } },
      { stream: 1, open: session(["sh", "-c", "sleep 0.3; exit 3"], "job", false) },
      { stream: 1, until: "close" },
      { stream: 3, open: { op: "sessions" } },
      { stream: 3, until: "close" },
      { until: "message" },
      { stream: 2, open: { op: "quiesce" } },
      { stream: 2, until: "close" },
      { until: "close" },
    ],
  },
  ask("file_read", { op: "file_read", path: `${directory}/hello.txt` }),
  ask("file_read of a part", { op: "file_read", path: `${directory}/hello.txt`, offset: 1, limit: 3 }),
  ask("file_read of nothing", { op: "file_read", path: `${directory}/missing` }),
  {
    name: "file_write",
    acts: [
      {
        open: {
          op: "file_write",
          path: `${directory}/new/file.txt`,
          ...{ mode: "0640", size: 4, parents: true },
        },
      },
      { data: "new\n" },
      { end: true },
      { until: "close" },
    ],
  },
  ask("file_owner", { op: "file_owner", owner: user }),
  ask("file_list", { op: "file_list", path: directory }),
  ask("file_stat of nothing", { op: "file_stat", path: `${directory}/missing` }),
  ask("file_stat", { op: "file_stat", path: `${directory}/hello.txt` }),
  ask("file_remove", { op: "file_remove", path: `${directory}/tree`, recursive: true }),
  ask("file_mkdir", { op: "file_mkdir", path: `${directory}/made/below`, parents: true, mode: "0755" }),
  ask("file_move", { op: "file_move", from: `${directory}/hello.txt`, to: `${directory}/moved.txt` }),
  { ...ask("archive_read", { op: "archive_read", path: `${directory}/tree` }), dataVaries: true },
  {
    name: "archive_write",
    acts: [
      { open: { op: "archive_write", path: directory } },
      { data: archive() },
      { end: true },
      { until: "close" },
    ],
  },
  {
    name: "dial",
    acts: [
      { open: { op: "dial", port } },
      { until: "message" },
      { data: "echo" },
      { until: "echo" },
      { end: true },
      { until: "close" },
    ],
  },
  ask("dial of a closed port", { op: "dial", port: 1 }),
  ask("ports", { op: "ports" }),
  ask("trim", { op: "trim", budget_ms: 250 }),
  ask("next_timer", { op: "next_timer" }),
  ask("quiesce", { op: "quiesce" }),
  {
    name: "quiesce while a command runs",
    acts: [
      { open: command(["sleep", "100"]) },
      { until: "message" },
      { stream: 1, open: { op: "quiesce" } },
      { stream: 1, until: "close" },
      { close: true },
      { until: "close" },
    ],
  },
  ask("shutdown", { op: "shutdown" }),
  ...ofProcesses,
  ask("an operation that the agent does not know", { op: "no_such_operation" }),
  { name: "a request that is no JSON", acts: [{ open: "{" }, { until: "close" }] },
]
