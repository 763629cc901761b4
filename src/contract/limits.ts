/** Every bound and default that users can meet. Imports nothing, so that the command line can load it for free. */

export const limits = {
  sandboxNamePattern: /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,
  sandboxNameRule: "1 to 63 letters, digits, dots, underscores or hyphens, starting with a letter or a digit",

  cpusDefault: 1,
  cpusMax: 64,
  memoryMibDefault: 512,
  memoryMibMin: 128,
  memoryMibMax: 1_048_576,
  /** The root filesystem's size in every image; a sandbox's disk cannot be smaller. */
  diskMibDefault: 8192,
  diskMibMax: 1_048_576,
  imageDefault: "workspace",

  /** Defaults of a new user. */
  userSandboxesDefault: 5,
  userCpusDefault: 4,
  userMemoryMibDefault: 4096,
  /** No quota: `disk_reserve_mb` keeps the host's last space, whoever takes the rest. */
  userDiskMibDefault: 0,
  userDiskMibMax: 1_073_741_824,
  userSandboxesMax: 10_000,

  execTimeoutSecDefault: 300,
  execTimeoutSecMax: 86_400,
  execArgsMax: 4096,
  execRequestBytesMax: 128 * 1024,
  /** Output kept by a buffered exec, each of stdout and stderr; more is cut and `truncated` says so. */
  execBufferedBytesMax: 8 * 1024 * 1024,
  /** Unacknowledged output an exec stream may have on its way to a client that acknowledges. */
  execStreamWindowBytes: 1024 * 1024,

  /** Rows or columns. */
  terminalSideMax: 10_000,

  envVarsMax: 256,
  envBytesMax: 64 * 1024,
  labelsMax: 16,
  secretsMax: 100,
  secretBytesMax: 32 * 1024,
  initScriptBytesMax: 64 * 1024,
  createFilesMax: 32,

  /** One written file; an archive may be larger. */
  fileBytesMax: 100 * 1024 * 1024,
  directoryEntriesMax: 100_000,
  publishedPortsMax: 20,

  /** Of one sandbox's network policy. */
  allowHostsMax: 64,
  allowCidrsMax: 64,
  /** Connections that one sandbox may have open through the host; more are refused. */
  connectionsPerSandboxMax: 4096,

  /** Named snapshots of one user. */
  snapshotsMax: 20,
  /** Sandboxes that one create makes. */
  createCountMax: 32,
  /** Longest time until an idle sandbox is paused, and a paused one written to disk: a year. */
  thermalSecMax: 31_536_000,

  /** Events of one answer, and their default. */
  eventsPerReplyMax: 1000,
  eventsPerReplyDefault: 100,
  eventDaysKept: 90,
  eventsKeptMax: 500_000,
  /** Of one user, so that nobody's events push out another's. */
  eventsPerUserMax: 100_000,
  /** Events that wait for one subscriber; one that reads more slowly is cut. */
  eventBacklogMax: 1000,
  eventSubscribersMax: 64,

  /** Connections to the daemon's address, for the API and for published ports together. */
  proxyConnectionsMax: 8192,
  proxyConnectionsPerClientMax: 2048,
  /** Connections to one alias; fewer than its guest gets, since one that gives way is still closing. */
  proxyConnectionsPerAliasMax: 160,
  /** With as many streams open a guest gets no more connections; the other 64 that its channel has are for commands. */
  publishedStreamsMax: 192,
  /** Downloads of the command line at once, in all and by one client. */
  downloadsMax: 32,
  downloadsPerClientMax: 8,
  /** Keys whose rate is counted apart, per kind of limit. */
  rateLimitBucketsMax: 10_000,

  requestBodyBytesMax: 1024 * 1024,
  requestIdPattern: /^[A-Za-z0-9._-]{1,64}$/,
} as const

export const defaultListen = "127.0.0.1:8080"
export const defaultApiUrl = "http://localhost:8080"
export const defaultDataDir = "/var/lib/bhatti"
/** Header of an answer that holds only the first part of what there is. */
export const truncatedHeader = "x-bhatti-truncated"
export const apiKeyPattern = /^bht_[0-9a-f]{64}$/
