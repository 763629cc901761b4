/** The daemon's configuration file, `config.yaml` in the data directory. Unknown keys are refused. */

import { z } from "zod"
import { TtlEnd } from "./lifetime.ts"
import { defaultCacheDir, defaultDataDir, defaultListen, limits } from "./limits.ts"

/** `burst` requests at once, and `per_minute` over time. */
function rate(defaults: { burst: number; per_minute: number }, description: string) {
  return z
    .strictObject({
      burst: z.int().min(1).max(1_000_000).default(defaults.burst),
      per_minute: z.int().min(1).max(60_000_000).default(defaults.per_minute),
    })
    .prefault({})
    .describe(description)
}

export const RateLimits = z.strictObject({
  create: rate({ burst: 100, per_minute: 600 }, "Sandboxes created, per user"),
  exec: rate({ burst: 1000, per_minute: 12_000 }, "Commands, terminals and file writes, per user"),
  other: rate({ burst: 1000, per_minute: 12_000 }, "All other requests to the API, per user"),
  proxy_client: rate({ burst: 500, per_minute: 1500 }, "Requests to published ports, per client address"),
  proxy_alias: rate({ burst: 2000, per_minute: 5000 }, "Requests to published ports, per alias"),
  proxy_total: rate({ burst: 10_000, per_minute: 10_000 }, "Requests to published ports, in all"),
  install: rate({ burst: 60, per_minute: 60 }, "Requests below /install, per client address"),
  certificate_ask: rate({ burst: 100, per_minute: 600 }, "Questions of a proxy about certificates"),
})
export type RateLimits = z.infer<typeof RateLimits>

const HostName = z
  .string()
  .toLowerCase()
  .regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, "use a host name without port")

const RegistryHost = z
  .string()
  .toLowerCase()
  .regex(/^[a-z0-9][a-z0-9.-]{0,252}(:\d{1,5})?$/, "use a host name, with a port if it is not 443")

const Origin = z
  .string()
  .refine((text) => URL.canParse(text) && /^https?:/.test(text) && new URL(text).origin === text, {
    error: "use an origin such as https://app.example.com, without a path",
  })

const Network = z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()], {
  error: "use an address or a network in CIDR form",
})

/** `HOST:PORT`, an IPv6 address in brackets. */
export const ListenAddress = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, "use HOST:PORT")
  .refine(
    (address) => Number(address.slice(address.lastIndexOf(":") + 1)) <= 65_535,
    "a port is at most 65535",
  )

const Settings = z.strictObject({
  data_dir: z
    .string()
    .startsWith("/")
    .default(defaultDataDir)
    .describe("Directory of all data: state, images, sandboxes"),
  listen: ListenAddress.default(defaultListen).describe(
    "Address of the API and of published ports; anything but loopback lets others connect",
  ),
  domain: HostName.default("localhost").describe(
    "Published ports are at ALIAS.domain, and the API at the domain itself",
  ),
  api_hosts: z
    .array(HostName)
    .default([])
    .describe("Further host names of the API; requests for any other host are refused"),
  allowed_origins: z
    .array(Origin)
    .default([])
    .describe(
      "Origins of web pages that may use the API with a key, such as https://app.example.com; pages of the API's own origin always may",
    ),
  public_scheme: z
    .enum(["http", "https"])
    .optional()
    .describe("Scheme in the URLs of published ports. Default: https with tls_cert, else http"),
  public_port: z
    .int()
    .min(1)
    .max(65_535)
    .optional()
    .describe(
      "Port in the URLs of published ports. Default: the scheme's default port with public_scheme, else that of listen",
    ),
  tls_cert: z
    .string()
    .startsWith("/")
    .optional()
    .describe("Certificate chain in PEM form for domain and *.domain; reloaded when it changes"),
  tls_key: z.string().startsWith("/").optional().describe("Its private key"),
  trusted_proxies: z
    .array(Network)
    .default([])
    .describe("Addresses of reverse proxies whose X-Forwarded headers are trusted"),
  rate_limits: RateLimits.prefault({}).describe(
    "`burst` requests at once and `per_minute` over time; more get 429 with Retry-After",
  ),
  accel: z
    .enum(["auto", "kvm", "tcg"])
    .default("auto")
    .describe("auto uses KVM if a guest boots under it, else software emulation"),
  require_kvm: z
    .boolean()
    .default(false)
    .describe("Refuse to start without KVM, since only KVM isolates hostile code"),
  kvm_probe_seconds: z
    .number()
    .min(1)
    .max(600)
    .default(5)
    .describe(
      "Longest silence of the guest that tests KVM; raise it for a slow host, such as a virtual machine",
    ),
  confinement: z
    .enum(["full", "reduced"])
    .default("full")
    .describe(
      "full: each QEMU has its own namespaces and root directory, or the daemon does not start; reduced: runs without them if the host refuses them",
    ),
  forks: z
    .enum(["auto", "off"])
    .default("auto")
    .describe(
      "auto: under software emulation new sandboxes are forked from a heated machine of their template where a trial finds that this works, and cloned elsewhere; off: all are cloned",
    ),
  fork_wakes: z
    .boolean()
    .default(false)
    .describe(
      "Experimental, with forks: auto: a stopped sandbox is woken by a fork of its template's heated machine instead of a clone; a fork that fails before the guest runs becomes a clone",
    ),
  forbidden_qemu: z
    .array(z.string().min(1).max(200))
    .max(100)
    .default([])
    .describe(
      "Versions of QEMU that must not run, such as 1:7.2+dfsg-7+deb12u15 or 7.2.22: a saved memory that needs one is given up and its sandbox boots from disk",
    ),
  network: z
    .enum(["auto", "tap", "user"])
    .default("auto")
    .describe("tap needs root; with user, sandboxes work but reach no network"),
  subnet: z
    .cidrv4({ error: "use an IPv4 network in CIDR form" })
    .refine((cidr) => /\/(1[2-9]|2[0-4])$/.test(cidr), "use a prefix of 12 to 24")
    .default("10.209.0.0/16")
    .describe(
      "Addresses of sandboxes, a prefix of 12 to 24; must not overlap any network the host has or reaches",
    ),
  dns_upstreams: z
    .array(z.union([z.ipv4(), z.ipv6()]))
    .default([])
    .describe("Name servers that answer sandboxes' queries. Default: those of /etc/resolv.conf"),
  allow_internal: z
    .array(z.union([z.ipv4(), z.cidrv4()], { error: "use an IPv4 address or an IPv4 network in CIDR form" }))
    .default([])
    .describe("Private networks that sandboxes may reach; each sandbox's own policy still applies"),
  uid_base: z
    .int()
    .min(1000)
    .max(2_000_000_000)
    .default(700_000)
    .describe("First of the 65 536 user ids that machines run as; no other program may use them"),
  pool: z
    .int()
    .min(0)
    .max(100)
    .default(20)
    .describe(
      "Most sandboxes kept ready per size: two of a size in use, more after a burst of creates; 0: none. Of a template that is forked none is kept",
    ),
  pool_memory_mb: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(512)
    .describe("Memory limit in MiB of all ready sandboxes together, each about 36"),
  cache_dir: z
    .string()
    .default(defaultCacheDir)
    .describe("Directory of kernels and images that are built or fetched once, as `bhatti init` has it"),
  images_at_need: z
    .boolean()
    .default(true)
    .describe(
      "Users may have the host install those of its own images (docker, python and others) that are missing; false: only its operator can",
    ),
  default_registry: RegistryHost.optional().describe(
    "Registry of references without one, such as debian:12; without it they are refused",
  ),
  allowed_registries: z
    .array(RegistryHost)
    .max(1000)
    .default([])
    .describe("The only registries that users may pull from. Default: any on the internet, and registries"),
  registries: z
    .array(
      z.strictObject({
        host: RegistryHost,
        insecure: z.boolean().default(false),
        ca_file: z.string().startsWith("/").optional(),
        token_host: RegistryHost.optional(),
      }),
    )
    .max(100)
    .default([])
    .describe(
      "Registries of your own: they may have internal addresses; insecure permits plain HTTP, ca_file names their certificates, token_host is the server that their logins are asked at, if it is another",
    ),
  image_max_mb: z
    .int()
    .min(1)
    .max(1_048_576)
    .default(20_480)
    .describe("Limit in MiB of an image that a user pulls or imports"),
  image_layers_mb: z
    .int()
    .min(0)
    .default(4096)
    .describe("Space limit in MiB of fetched layers that are kept for images that share them"),
  pull_timeout: z.number().min(10).max(86_400).default(3600).describe("Time limit in seconds of a pull"),
  warm_after: z.number().min(0).default(30).describe("Idle seconds until a sandbox is paused; 0: never"),
  timer_window: z
    .number()
    .min(0)
    .max(3600)
    .default(60)
    .describe(
      "Do not pause a sandbox while a program in it, other than a server, has a timer due within this many seconds; 0: ignore timers",
    ),
  cold_after: z
    .number()
    .min(0)
    .default(1800)
    .describe("Seconds until a paused sandbox is saved to disk; 0: never"),
  e2b: z
    .enum(["on", "off"])
    .default("off")
    .describe(
      "on: the address of the API also answers e2b's SDKs: sandboxes, commands, terminals and files. Published ports then have the name PORT-ID.DOMAIN too",
    ),
  default_ttl: z
    .number()
    .min(0)
    .max(limits.ttlSecMax)
    .default(0)
    .describe("Seconds to live of new sandboxes that ask for no other; 0: for ever"),
  default_on_ttl: TtlEnd.default("pause").describe(
    "The end of a time to live if a new sandbox asks for no other: pause, destroy, or keep (only an event)",
  ),
  stopped_retention: z
    .number()
    .min(0)
    .default(0)
    .describe(
      "Seconds after which a stopped sandbox that nobody uses is destroyed, announced by an event an hour before; 0: never",
    ),
  user_lifetimes: z
    .record(
      z.string(),
      z.strictObject({
        default_ttl: z.number().min(0).max(limits.ttlSecMax).optional(),
        default_on_ttl: TtlEnd.optional(),
        stopped_retention: z.number().min(0).optional(),
      }),
    )
    .default({})
    .describe("The same three for single users, by name"),
  ttl_warning: z
    .number()
    .min(1)
    .max(86_400)
    .default(60)
    .describe("Seconds before the end of a time to live at which it is announced, or half of a shorter time"),
  ttl_grace: z
    .number()
    .min(0)
    .max(86_400)
    .default(30)
    .describe("Seconds that clients which are connected to a sandbox have at least after the announcement"),
  disk_reserve_mb: z
    .int()
    .min(0)
    .default(1024)
    .describe(
      "Space in MiB kept free on the data directory's file system: below it creates are refused, and running sandboxes that write are paused",
    ),
  memory_reserve_mb: z
    .int()
    .min(0)
    .max(10_000_000)
    .default(512)
    .describe(
      "Memory in MiB kept available on the host: starts that would leave less are refused, and below twice that idle sandboxes are saved to disk early; 0: no reserve",
    ),
  disk_mb_per_second: z
    .int()
    .min(0)
    .max(1_000_000)
    .default(500)
    .describe(
      "Limit in MiB per second on one sandbox's disk reads, and on its writes, if the host supports it; 0: no limit",
    ),
  template_disk_mb: z
    .int()
    .min(0)
    .default(8192)
    .describe(
      "Space limit in MiB of templates; above it templates that nothing depends on are removed, least recently used first",
    ),
  guest_ca: z
    .string()
    .startsWith("/")
    .optional()
    .describe(
      "File of certificates in PEM form that new sandboxes trust, such as those of a proxy that inspects TLS",
    ),
  guest_proxy: z
    .url({ protocol: /^https?$/, error: "use http://HOST:PORT" })
    .optional()
    .describe(
      "Proxy that sandboxes get in http_proxy and https_proxy; an internal address must also be in allow_internal",
    ),
  guest_no_proxy: z
    .array(
      z
        .string()
        .min(1)
        .max(253)
        .regex(/^[^,\s]+$/, "one name or address each"),
    )
    .max(100)
    .default([])
    .describe(
      "Names and addresses that sandboxes reach without guest_proxy, besides their own and their siblings'",
    ),
  on_stop: z
    .enum(["keep", "snapshot"])
    .default("keep")
    .describe("When the daemon stops: keep leaves sandboxes running, snapshot saves them to disk"),
  stop_timeout: z
    .number()
    .min(1)
    .max(120)
    .default(60)
    .describe("Time limit in seconds for saving them; sandboxes not saved by then keep running"),
  metrics_token: z
    .string()
    .min(16)
    .max(256)
    .optional()
    .describe("Bearer token for GET /metrics; without it there are no metrics"),
  log_level: z
    .enum(["trace", "debug", "info", "warn", "error"])
    .default("info")
    .describe("Least severe level in the log, which is written as JSON lines on standard output"),
  // Keys of the command line may be in the same file, since BHATTI_CONFIG can name one file for both.
  api_url: z.string().optional().describe("For the command line: address of the API"),
  auth_token: z.string().optional().describe("For the command line: its API key"),
  ca_file: z.string().optional().describe("For the command line: certificates that it trusts for https"),
})

export const configKeys: readonly string[] = Object.keys(Settings.shape)

export const Config = Settings.refine(
  ({ tls_cert, tls_key }) => (tls_cert === undefined) === (tls_key === undefined),
  { path: ["tls_key"], error: "tls_cert and tls_key belong together" },
).refine(({ require_kvm, accel }) => !(require_kvm && accel === "tcg"), {
  path: ["require_kvm"],
  error: "accel: tcg is software emulation, which require_kvm: true refuses",
})
export type Config = z.infer<typeof Config>
