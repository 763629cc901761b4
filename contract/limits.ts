/** Every limit and default that users can meet. Imports nothing, so that it costs the command line nothing to load. */

const labelWord = "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?"

export const limits = {
  sandboxNamePattern: /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,
  sandboxNameRule: "1 to 63 letters, digits, dots, underscores or hyphens, starting with a letter or a digit",
  /** Keeps a sandbox's name from being another's id, where requests accept either. */
  sandboxNameIsIdRule: "a sandbox name must not look like an id",
  /** The name of an image, or a reference to one in a registry. */
  imageNamePattern: /^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,254}$/,
  imageNameRule:
    "an image is a name such as minimal or a reference such as debian:12: up to 255 letters, digits, dots, underscores, hyphens, slashes, colons and @",
  imageNameIsIdRule: "an image name must not look like an id or a digest",
  /** Allows a single line, since tables print it. */
  descriptionPattern: /^[^\p{Cc}\p{Zl}\p{Zp}]*$/u,
  descriptionRule: "a description is one line of text",
  descriptionMax: 500,
  variableNamePattern: /^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
  variableNameRule: "a variable's name has letters, digits and underscores",
  secretNameRule: "a secret's name has letters, digits and underscores, as a variable's",
  labelKeyPattern: new RegExp(`^(${labelWord}/)?${labelWord}$`),
  labelKeyRule: "a label's key has letters, digits, dots, underscores or hyphens",
  labelReservedPrefix: "bhatti.sh/",
  labelReservedRule: "labels under bhatti.sh/ are reserved",
  labelValuePattern: /^[a-zA-Z0-9._-]{0,256}$/,
  labelValueRule: "a label's value has up to 256 letters, digits, dots, underscores or hyphens",
  aliasPattern: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  aliasRule: "an alias has 1 to 63 lower-case letters, digits or inner hyphens",
  portMax: 65_535,

  userNamePattern: /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,

  cpusDefault: 1,
  cpusMax: 64,
  memoryMibDefault: 512,
  memoryMibMin: 128,
  memoryMibMax: 1_048_576,
  /** Size of the root filesystem in every image; a sandbox's disk cannot be smaller. */
  diskMibDefault: 8192,
  diskMibMax: 1_048_576,
  imageDefault: "workspace",

  /** Defaults of a new user. */
  userSandboxesDefault: 5,
  userCpusDefault: 4,
  userMemoryMibDefault: 4096,
  /** No quota by default: `disk_reserve_mb` protects the host's last space. */
  userDiskMibDefault: 0,
  userDiskMibMax: 1_073_741_824,
  userSandboxesMax: 10_000,

  execTimeoutSecDefault: 300,
  execTimeoutSecMax: 86_400,
  execArgsMax: 4096,
  execRequestBytesMax: 128 * 1024,
  /** Output kept by a buffered exec, for each of stdout and stderr; more is cut and `truncated` is set. */
  execBufferedBytesMax: 8 * 1024 * 1024,
  /** Limit on unacknowledged output of an exec stream whose client acknowledges. */
  execStreamWindowBytes: 1024 * 1024,

  /** How long a command with a key waits for a client that has left, and how long a buffered result is kept. */
  execGraceSec: 60,
  execGraceSecMax: 600,
  execRetainSec: 600,
  /** Limit on unacknowledged output of a command with a key: the guest still has every byte that the client lacks. */
  execKeyedWindowBytes: 512 * 1024,
  /** How long a process without a client is kept after its end. */
  processRetainSecDefault: 86_400,
  processRetainSecMax: 2_592_000,
  /** Newest output that is kept, for each of stdout and stderr. */
  processOutputBytesDefault: 1024 * 1024,
  processOutputBytesMin: 64 * 1024,
  processOutputBytesMax: 16 * 1024 * 1024,
  /** Terminal output that is kept of a session. */
  sessionOutputBytes: 256 * 1024,
  processWaitSecMax: 3600,

  /** A user of the guest, by name or number, and maybe a group. */
  guestUserPattern: /^[a-zA-Z_0-9][a-zA-Z0-9_.-]{0,63}(:[a-zA-Z_0-9][a-zA-Z0-9_.-]{0,63})?$/,
  guestUserRule: "not a user name; it is USER or USER:GROUP, names or numbers",
  /** USER:GROUP in the configuration of an image. */
  guestUserSpecMax: 128,
  imageLabelsBytesMax: 64 * 1024,
  guestPathMax: 4096,
  /** Limit on rows and on columns. */
  terminalSideMax: 10_000,
  /** Limit on the length of a terminal's name. */
  terminalNameMax: 64,

  envVarsMax: 256,
  envValueMax: 32_768,
  envBytesMax: 64 * 1024,
  labelsMax: 16,
  secretsMax: 100,
  secretBytesMax: 32 * 1024,
  initScriptBytesMax: 64 * 1024,
  createFilesMax: 32,
  startCommandMax: 4096,
  servicesMax: 16,
  /** The names of processes. */
  serviceNamePattern: /^[a-zA-Z][a-zA-Z0-9._-]{0,62}$/,
  processIdPattern: /^[sp][0-9]+$/,
  serviceNameRule:
    "a service's name has 1 to 63 letters, digits, dots, underscores or hyphens, starts with a letter and is not an id",
  serviceNamesReserved: ["init", "init-system", "main"] as readonly string[],
  serviceNameReservedRule:
    "init, main and init-system are the names of the init script, the start command and the image's init",
  serviceTextMax: 1024,
  /** Templates with start commands of one user's creates that nothing depends on; the oldest gives way. */
  ownTemplatesMax: 4,

  /** Limit per written file; an archive may be larger. */
  fileBytesMax: 100 * 1024 * 1024,
  directoryEntriesMax: 100_000,
  publishedPortsMax: 20,

  /** Limits of one sandbox's network policy. */
  allowHostsMax: 64,
  allowCidrsMax: 64,
  /** Limit on a sandbox's open connections through the host; more are refused. */
  connectionsPerSandboxMax: 4096,

  /** Limit on one user's named snapshots. */
  snapshotsMax: 20,
  /** Limit on one user's images, on their tasks that run, and on ended ones that are kept. */
  imagesMax: 200,
  tasksRunningMax: 32,
  tasksKept: 100,
  taskDaysKept: 7,
  registryLoginsMax: 50,
  registryWordMax: 4096,
  /** Limit on the sandboxes of one create. */
  createCountMax: 32,
  /** Longest time until an idle sandbox is paused, and a paused one written to disk: a year. */
  keyNamePattern: /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,
  keyNameRule: "a key's name has 1 to 63 letters, digits, dots, underscores or hyphens",
  keyPermissionsMax: 32,
  keySandboxesMax: 100,
  /** Ten years. */
  keyLifeSecMax: 315_360_000,
  /** Per user. */
  keysMax: 200,
  thermalSecMax: 31_536_000,
  /** Ten years. */
  ttlSecMax: 315_360_000,

  /** Limit and default of events per answer. */
  eventsPerReplyMax: 1000,
  eventsPerReplyDefault: 100,
  eventDaysKept: 90,
  eventsKeptMax: 500_000,
  /** Limit per user, so that one user's events never evict another's. */
  eventsPerUserMax: 100_000,
  /** Events queued for one subscriber; a slower reader is disconnected. */
  eventBacklogMax: 1000,
  eventSubscribersMax: 64,

  /** Limit on connections to the daemon's address, for the API and published ports together. */
  proxyConnectionsMax: 8192,
  proxyConnectionsPerClientMax: 2048,
  /** Limit on connections to one alias; below the guest's limit, since an evicted connection takes time to close. */
  proxyConnectionsPerAliasMax: 160,
  /** With this many streams open, a guest gets no more connections; its channel's other 64 are for commands. */
  publishedStreamsMax: 192,
  /** Limits on concurrent downloads of the command line, in total and per client. */
  downloadsMax: 32,
  downloadsPerClientMax: 8,
  /** Keys whose rate is counted separately, per kind of limit. */
  rateLimitBucketsMax: 10_000,

  /** Life of a ticket for a WebSocket, and limit on one user's unused ones. */
  socketTicketSec: 30,
  socketTicketsMax: 64,

  requestBodyBytesMax: 1024 * 1024,
  requestIdPattern: /^[A-Za-z0-9._-]{1,64}$/,
} as const

/** Aliases that a domain's owner may need. */
export const reservedAliases: readonly string[] = [
  "www",
  "mail",
  "admin",
  "status",
  "ns1",
  "ns2",
  "api",
  "app",
  "_acme-challenge",
  "localhost",
]

export const defaultListen = "127.0.0.1:8080"
export const defaultApiUrl = "http://localhost:8080"
export const defaultDataDir = "/var/lib/bhatti"
/** Keeps kernels and images by content, outside every data directory, so that they are fetched and built once. */
export const defaultCacheDir = "/var/cache/bhatti"
/** Headers of a process's output: the offset of its first byte, and how many bytes there were. */
export const offsetHeader = "x-bhatti-offset"
export const totalHeader = "x-bhatti-total"
/** Header of an answer that was cut at its limit. */
export const truncatedHeader = "x-bhatti-truncated"
/** Subprotocols that a WebSocket offers if its client cannot send a key: the first, and the second with a ticket. */
export const socketProtocol = "bhatti"
export const ticketProtocol = "bhatti.ticket."
export const apiKeyPattern = /^bht_[0-9a-f]{64}$/
