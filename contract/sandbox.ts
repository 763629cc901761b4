/** A sandbox as its user sees it: the shapes of the resource and of its requests. */

import { z } from "zod"
import { Event } from "./event.ts"
import { FileMode, GuestPath } from "./file.ts"
import { SandboxId, UserId } from "./ids.ts"
import { Argument, ImageConfig } from "./image-config.ts"
import { TtlEnd } from "./lifetime.ts"
import { limits } from "./limits.ts"
import { NetPolicy, NetPolicyInput } from "./network.ts"
import { SecretName } from "./secret.ts"
import { Service, Services } from "./services.ts"

export const SandboxName = z
  .string()
  .regex(limits.sandboxNamePattern, `a sandbox name has ${limits.sandboxNameRule}`)
  .refine((name) => !SandboxId.safeParse(name).success, limits.sandboxNameIsIdRule)
  .describe("Name of the sandbox, unique among yours")

export const ImageName = z
  .string()
  .regex(limits.imageNamePattern, limits.imageNameRule)
  .describe("Image to start from")

export const Env = z
  .record(
    z.string().regex(limits.variableNamePattern, limits.variableNameRule),
    z
      .string()
      .max(limits.envValueMax)
      .refine((value) => !value.includes("\0"), "a variable cannot hold a NUL"),
  )
  .refine((env) => Object.keys(env).length <= limits.envVarsMax, `at most ${limits.envVarsMax} variables`)
  .refine(
    (env) =>
      Object.entries(env).reduce((sum, [key, value]) => sum + key.length + value.length + 2, 0) <=
      limits.envBytesMax,
    `at most ${limits.envBytesMax} bytes of variables`,
  )

export const Labels = z
  .record(
    z
      .string()
      .regex(limits.labelKeyPattern, limits.labelKeyRule)
      .refine((key) => !key.startsWith(limits.labelReservedPrefix), limits.labelReservedRule),
    z.string().regex(limits.labelValuePattern, limits.labelValueRule),
  )
  .refine((labels) => Object.keys(labels).length <= limits.labelsMax, `at most ${limits.labelsMax} labels`)

const LabelPair = z
  .string()
  .max(512)
  .regex(/^[^=]+=/, "a label filter has the form key=value")
export const ListSandboxes = z.strictObject({
  label: z
    .union([LabelPair, z.array(LabelPair).max(limits.labelsMax)])
    .optional()
    .describe("Only sandboxes with this label, as key=value; repeat it to require several"),
})

export const Thermal = z
  .enum(["hot", "warm", "cold"])
  .describe("hot: running; warm: paused in memory; cold: on disk only")

export const Held = z
  .enum(["host_disk", "disk_quota"])
  .describe("host_disk: the host's disk is nearly full; disk_quota: its owner's disk quota is used up")
export type Held = z.infer<typeof Held>

const Description = z
  .string()
  .min(1)
  .max(limits.descriptionMax)
  .regex(limits.descriptionPattern, limits.descriptionRule)

const StartCommand = z
  .string()
  .min(1)
  .max(limits.startCommandMax)
  .refine((command) => !command.includes("\0"), "a command cannot hold a NUL")

const TtlSeconds = z.number().min(0).max(limits.ttlSecMax)

const ThermalSeconds = z.number().min(0).max(limits.thermalSecMax)

export const Sandbox = z
  .object({
    id: SandboxId,
    name: SandboxName,
    status: z
      .enum(["creating", "running", "stopping", "stopped", "waking", "destroying"])
      .describe("A stopped sandbox starts again at the next request"),
    status_reason: z
      .string()
      .nullable()
      .describe(
        "Why a stopped sandbox lost its memory and will boot from disk, why a running one did at its last start, or why it is held",
      ),
    thermal: Thermal.nullable(),
    held: Held.nullable().describe(
      "Why it is held (paused, and refusing requests); it resumes automatically. null: it is not held",
    ),
    image: ImageName,
    cpus: z.int(),
    memory_mb: z.int().describe("Memory in MiB"),
    disk_size_mb: z.int().describe("Size of the root disk in MiB"),
    keep_hot: z
      .boolean()
      .describe("Never paused when idle, and restarted with the daemon unless its owner has stopped it"),
    allow_cold: z.boolean().describe("Whether it may be saved to disk after a long pause"),
    warm_after: z
      .number()
      .nullable()
      .describe("Idle seconds until it is paused; 0: never; null: the host's default"),
    cold_after: z
      .number()
      .nullable()
      .describe("Paused seconds until it is saved to disk; 0: never; null: the host's default"),
    ttl: z
      .number()
      .nullable()
      .describe("Seconds to live, from its creation or from when this was set; null: for ever"),
    on_ttl: TtlEnd,
    ends_at: z.iso
      .datetime()
      .nullable()
      .describe(
        "When its time to live is over; later if the host is switched off or suspended meanwhile. null: it has none, or it is over",
      ),
    description: z.string().nullable().describe("Its purpose, in its owner's words"),
    on_boot: z.boolean().describe("Whether the init script runs at each boot"),
    start_command: z
      .string()
      .nullable()
      .describe("Ran already when it was made, and runs at each boot; null: none"),
    ready_command: z.string().nullable().describe("Proved that the start command was ready"),
    main: z
      .array(z.string())
      .nullable()
      .describe(
        "The image's program with its arguments, which runs as the session `main`; null: none was started",
      ),
    image_config: ImageConfig.nullable().describe(
      "The image's own configuration: defaults of commands, its program, ports and labels; null: an image of the host",
    ),
    services: z.array(Service).describe("Started at each boot and kept running"),
    init_system: z
      .boolean()
      .describe("The image's init (systemd or another) runs, and programs run beside it"),
    labels: z.record(z.string(), z.string()),
    urls: z.array(z.string()).describe("URLs of its published ports"),
    ip: z.string().nullable().describe("Its address, reachable only from its owner's other sandboxes"),
    net_policy: NetPolicy,
    created_by: UserId,
    created_at: z.iso.datetime(),
  })
  .meta({ id: "Sandbox" })
export type Sandbox = z.infer<typeof Sandbox>

export const CreateSandbox = z
  .strictObject({
    name: SandboxName.optional(),
    from: z
      .string()
      .min(1)
      .max(128)
      .optional()
      .describe(
        "Copy this sandbox in its current state; image and size are those of the source, and init and files are not allowed",
      ),
    image: ImageName.optional().meta({ default: limits.imageDefault }),
    cpus: z
      .int()
      .min(1)
      .max(limits.cpusMax)
      .optional()
      .meta({ default: limits.cpusDefault, description: "Number of vCPUs" }),
    memory_mb: z
      .int()
      .min(limits.memoryMibMin)
      .max(limits.memoryMibMax)
      .optional()
      .meta({ default: limits.memoryMibDefault, description: "Memory in MiB" }),
    disk_size_mb: z
      .int()
      .min(
        limits.diskMibDefault,
        `the image's root filesystem needs ${limits.diskMibDefault} MiB; only written blocks use space`,
      )
      .max(limits.diskMibMax)
      .optional()
      .meta({
        default: limits.diskMibDefault,
        description: "Size of the root disk in MiB; only written blocks use space on the host",
      }),
    env: Env.default({}).describe("Environment of every command in the sandbox"),
    secrets: z
      .array(SecretName)
      .max(limits.secretsMax)
      .default([])
      .describe("Names of your secrets that it gets as environment variables"),
    labels: Labels.default({}),
    keep_hot: z
      .boolean()
      .default(false)
      .describe("Never pause it when idle, and restart it with the daemon unless you have stopped it"),
    net_policy: NetPolicyInput.optional(),
    warm_after: ThermalSeconds.optional().describe(
      "Idle seconds until it is paused; 0: never; default: the host's setting",
    ),
    cold_after: ThermalSeconds.optional().describe(
      "Paused seconds until it is saved to disk; 0: never; default: the host's setting",
    ),
    ttl: TtlSeconds.optional().describe(
      "Seconds to live; 0: for ever; default: the host's setting, for a copy its source's",
    ),
    on_ttl: TtlEnd.optional(),
    description: Description.optional().describe("Its purpose, in your words; copies inherit it"),
    init: z
      .string()
      .min(1)
      .max(limits.initScriptBytesMax)
      .optional()
      .describe("Shell script that runs as the session `init` when the sandbox has started"),
    on_boot: z
      .boolean()
      .default(true)
      .describe(
        "Run the init script at each boot too: after a restart, a crash or an update of the host, but not after a stop",
      ),
    start_command: StartCommand.optional().describe(
      "Program that runs already when the sandbox is made, as the session `main`; your later creates with the same two commands are as fast as any. Default: the image's",
    ),
    run: z
      .array(Argument)
      .max(limits.execArgsMax)
      .optional()
      .describe(
        "Start the image's program as the session `main`, and again at each boot: its entrypoint with these arguments, or with its own if the list is empty",
      ),
    ready_command: StartCommand.optional().describe(
      "Is retried until it succeeds, before the first sandbox with this start command is made; default: `true`",
    ),
    init_system: z
      .boolean()
      .optional()
      .describe(
        "Start the image's init: systemd, sysvinit, busybox or another; commands then run in its namespaces. Default: the image's",
      ),
    services: Services.default([]).describe("Started with the sandbox and at each boot, and kept running"),
    files: z
      .array(
        z.strictObject({
          guest_path: GuestPath,
          content: z.base64().describe("The file's bytes in base64"),
          mode: FileMode.optional(),
        }),
      )
      .max(limits.createFilesMax)
      .default([])
      .describe("Written before the init script starts"),
    if_not_exists: z
      .boolean()
      .default(false)
      .describe("If a sandbox of that name exists, return it unchanged (status 200) instead of an error"),
  })
  .meta({ id: "CreateSandbox" })
export type CreateSandbox = z.infer<typeof CreateSandbox>

export const CreateSandboxes = CreateSandbox.extend({
  count: z
    .int()
    .min(1)
    .max(limits.createCountMax)
    .describe("Create this many, all or none; with a name they are called NAME-1 to NAME-N"),
}).meta({ id: "CreateSandboxes" })

export const DestroyedSandbox = z.object({ status: z.literal("destroyed") }).meta({ id: "DestroyedSandbox" })

export const UpdateSandbox = z
  .strictObject({
    name: SandboxName.optional().describe("Its new name; the host name inside changes at the next boot"),
    keep_hot: z.boolean().optional(),
    allow_cold: z.boolean().optional(),
    warm_after: ThermalSeconds.nullable().optional().describe("As in a create; null: the host's default"),
    cold_after: ThermalSeconds.nullable().optional().describe("As in a create; null: the host's default"),
    ttl: TtlSeconds.optional().describe("Seconds to live from now on; 0: for ever"),
    on_ttl: TtlEnd.optional(),
    description: Description.nullable().optional().describe("null removes it"),
    labels_add: Labels.default({}),
    net_policy: NetPolicyInput.optional().describe("Replaces the current policy at once"),
    labels_remove: z.array(z.string().max(128)).max(limits.labelsMax).default([]),
    services_add: Services.default([]).describe(
      "Services that it gets, each in place of one of that name; they start at once. The sandbox is woken for it",
    ),
    services_remove: z
      .array(z.string().max(128))
      .max(limits.servicesMax)
      .default([])
      .describe("Names of services that end and do not start again"),
  })
  .meta({ id: "UpdateSandbox" })
export type UpdateSandbox = z.infer<typeof UpdateSandbox>

export const StartSandbox = z
  .strictObject({
    force: z.boolean().default(false).describe("Start it now, even if failed starts have made it back off"),
  })
  .meta({ id: "StartSandbox" })
export type StartSandbox = z.infer<typeof StartSandbox>

export const Repaired = z
  .object({
    result: z
      .enum(["clean", "repaired", "damaged"])
      .describe("clean: no errors; repaired: all errors were fixed; damaged: some could not be"),
    output: z.string().describe("The end of e2fsck's output"),
    sandbox: Sandbox,
  })
  .meta({ id: "Repaired" })
export type Repaired = z.infer<typeof Repaired>

export const Why = z
  .object({
    thermal: Thermal.nullable(),
    reason: z.string().describe("Reason for its state"),
    held: Held.nullable().describe("Why it is held (paused, and refusing requests); null: it is not held"),
    keeps_awake: z.array(z.string()).describe("Reasons why it is not paused now"),
    last_touch: z
      .object({ what: z.string(), seconds_ago: z.int() })
      .nullable()
      .describe("The last request to it since the daemon started"),
    started_from_disk: z
      .string()
      .nullable()
      .describe("Why it lost its memory at its last start; null: it kept it"),
    panic_console: z
      .string()
      .nullable()
      .describe("The end of its console, if a kernel panic ended its last machine"),
    root_read_only: z
      .boolean()
      .nullable()
      .describe(
        "Whether its kernel has made its file system read-only, which a repair may fix; null: unknown",
      ),
    failed_starts: z
      .object({ in_a_row: z.int(), reason: z.string(), rest_seconds: z.int() })
      .nullable()
      .describe("Failed starts since it last ran, the last reason, and how long it backs off"),
    failing_services: z
      .array(z.object({ name: z.string(), restarts: z.int(), reason: z.string().nullable() }))
      .describe("Services that end again and again"),
    open_streams: z.int().describe("Open commands, sessions, transfers and connections, which keep it awake"),
    idle_seconds: z.int(),
    changes_in_seconds: z.int().nullable().describe("When the state changes if nothing happens"),
    changes_to: Thermal.nullable(),
    lifetime: z
      .object({
        ends_at: z.iso.datetime().nullable().describe("null: it is over"),
        ends_in_seconds: z.int().nullable(),
        action: TtlEnd,
        reason: z
          .enum(["ttl", "stopped_retention"])
          .describe("ttl: its time to live; stopped_retention: the operator keeps stopped sandboxes so long"),
        warned: z.boolean().describe("Whether the end has been announced"),
      })
      .nullable()
      .optional()
      .describe("The end of its life, the nearest if there are two; null: it lives for ever"),
    destroyed_at: z.iso
      .datetime()
      .nullable()
      .describe("When it was destroyed; only its last ends are known then. null: it exists"),
    ends: z
      .array(Event)
      .describe("Events of its last ends, oldest first: of its processes, its commands and its machines"),
  })
  .meta({ id: "Why" })
export type Why = z.infer<typeof Why>
