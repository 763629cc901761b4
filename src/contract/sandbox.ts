/** A sandbox as its user sees it: the shapes of the resource and of its requests. */

import { z } from "zod"
import { FileMode, GuestPath } from "./file.ts"
import { limits } from "./limits.ts"
import { NetPolicy, NetPolicyInput } from "./network.ts"
import { SecretName } from "./secret.ts"

export const SandboxId = z
  .string()
  .regex(/^sb_[0-9a-f]{16}$/)
  .brand<"SandboxId">()
export type SandboxId = z.infer<typeof SandboxId>

export const UserId = z
  .string()
  .regex(/^usr_[0-9a-f]{8}$/)
  .brand<"UserId">()
export type UserId = z.infer<typeof UserId>

export const SandboxName = z
  .string()
  .regex(limits.sandboxNamePattern, `a sandbox name has ${limits.sandboxNameRule}`)
  // Where either is accepted, one sandbox's name must not be another's id.
  .refine((name) => !SandboxId.safeParse(name).success, "a sandbox name is not formed like an id")
  .describe("Name of the sandbox, unique among yours")

export const ImageName = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9._-]{0,62}$/,
    "an image name has lower-case letters, digits, dots, underscores or hyphens",
  )
  .describe("Image to start from")

export const Env = z
  .record(
    z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "a variable's name has letters, digits and underscores"),
    z
      .string()
      .max(32_768)
      .refine((value) => !value.includes("\0"), "a variable cannot hold a NUL"),
  )
  .refine((env) => Object.keys(env).length <= limits.envVarsMax, `at most ${limits.envVarsMax} variables`)
  .refine(
    (env) =>
      Object.entries(env).reduce((sum, [key, value]) => sum + key.length + value.length + 2, 0) <=
      limits.envBytesMax,
    `at most ${limits.envBytesMax} bytes of variables`,
  )

const labelWord = "[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?"
export const Labels = z
  .record(
    z
      .string()
      .regex(
        new RegExp(`^(${labelWord}/)?${labelWord}$`),
        "a label's key has letters, digits, dots, underscores or hyphens",
      )
      .refine((key) => !key.startsWith("bhatti.sh/"), "labels under bhatti.sh/ are reserved"),
    z
      .string()
      .regex(
        /^[a-zA-Z0-9._-]{0,256}$/,
        "a label's value has up to 256 letters, digits, dots, underscores or hyphens",
      ),
  )
  .refine((labels) => Object.keys(labels).length <= limits.labelsMax, `at most ${limits.labelsMax} labels`)

const LabelPair = z
  .string()
  .max(512)
  .regex(/^[^=]+=/, "a label is asked for as key=value")
export const ListSandboxes = z.strictObject({
  label: z
    .union([LabelPair, z.array(LabelPair).max(limits.labelsMax)])
    .optional()
    .describe("Only those with this label, as key=value; given several times, only those with all of them"),
})

export const Thermal = z
  .enum(["hot", "warm", "cold"])
  .describe("hot: running; warm: paused in memory; cold: on disk only")

export const Held = z
  .enum(["host_disk", "disk_quota"])
  .describe("host_disk: the host's disk is nearly full; disk_quota: its owner's disk quota is used up")
export type Held = z.infer<typeof Held>

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
        "Why a stopped sandbox lost its memory and will boot from its disk, or why a running one did at its last start or is held now",
      ),
    thermal: Thermal.nullable(),
    held: Held.nullable().describe(
      "Why it is paused and refuses requests; it goes on by itself. null: it is not",
    ),
    image: ImageName,
    cpus: z.int(),
    memory_mb: z.int().describe("Memory in MiB"),
    disk_size_mb: z.int().describe("Size of the root disk in MiB"),
    keep_hot: z
      .boolean()
      .describe("It is never paused, and runs again when the daemon starts unless its owner has stopped it"),
    allow_cold: z.boolean().describe("It may be written to disk when it was paused for long"),
    warm_after: z
      .number()
      .nullable()
      .describe("Idle seconds until it is paused, 0: never, null: as the host does it"),
    cold_after: z
      .number()
      .nullable()
      .describe("Paused seconds until it is written to disk, 0: never, null: as the host does it"),
    on_boot: z.boolean().describe("Its init script runs again at each boot of its machine"),
    labels: z.record(z.string(), z.string()),
    urls: z.array(z.string()).describe("Where its published ports answer"),
    ip: z.string().nullable().describe("Its address; only its owner's other sandboxes reach it"),
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
        "Copy this sandbox as it runs now; image and size are then its, and there are no init and files",
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
      .describe("Names of your secrets that it gets as environment"),
    labels: Labels.default({}),
    keep_hot: z
      .boolean()
      .default(false)
      .describe(
        "Never pause it when it is idle; with the daemon it starts again, unless you have stopped it",
      ),
    net_policy: NetPolicyInput.optional(),
    warm_after: ThermalSeconds.optional().describe(
      "Idle seconds until it is paused, 0: never; default: as the host does it",
    ),
    cold_after: ThermalSeconds.optional().describe(
      "Paused seconds until it is written to disk, 0: never; default: as the host does it",
    ),
    init: z
      .string()
      .min(1)
      .max(limits.initScriptBytesMax)
      .optional()
      .describe("Shell script, run as the session `init` when the sandbox is up"),
    on_boot: z
      .boolean()
      .default(true)
      .describe(
        "Run the init script again at each boot of its machine: after a restart, a crash or an update of the host, not after a stop",
      ),
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
      .describe("An existing sandbox of that name is the answer (status 200), not an error"),
  })
  .meta({ id: "CreateSandbox" })
export type CreateSandbox = z.infer<typeof CreateSandbox>

export const CreateSandboxes = CreateSandbox.extend({
  count: z
    .int()
    .min(1)
    .max(limits.createCountMax)
    .describe("How many; with a name they are called NAME-1 to NAME-N"),
}).meta({ id: "CreateSandboxes" })

export const DestroyedSandbox = z.object({ status: z.literal("destroyed") }).meta({ id: "DestroyedSandbox" })

export const UpdateSandbox = z
  .strictObject({
    name: SandboxName.optional().describe("Its new name; its host name inside stays until it boots again"),
    keep_hot: z.boolean().optional(),
    allow_cold: z.boolean().optional(),
    warm_after: ThermalSeconds.nullable().optional().describe("As at create; null: as the host does it"),
    cold_after: ThermalSeconds.nullable().optional().describe("As at create; null: as the host does it"),
    labels_add: Labels.default({}),
    net_policy: NetPolicyInput.optional().describe("Takes the place of the former policy, at once"),
    labels_remove: z.array(z.string().max(128)).max(limits.labelsMax).default([]),
  })
  .meta({ id: "UpdateSandbox" })
export type UpdateSandbox = z.infer<typeof UpdateSandbox>

export const StartSandbox = z
  .strictObject({
    force: z
      .boolean()
      .default(false)
      .describe("Try at once, also when it has failed to start several times and rests"),
  })
  .meta({ id: "StartSandbox" })
export type StartSandbox = z.infer<typeof StartSandbox>

export const Repaired = z
  .object({
    result: z
      .enum(["clean", "repaired", "damaged"])
      .describe("clean: nothing was wrong; repaired: all errors were put right; damaged: some could not be"),
    output: z.string().describe("The last words of e2fsck"),
    sandbox: Sandbox,
  })
  .meta({ id: "Repaired" })
export type Repaired = z.infer<typeof Repaired>

export const Why = z
  .object({
    thermal: Thermal.nullable(),
    reason: z.string().describe("Why it is so"),
    held: Held.nullable().describe("Why it is paused and refuses requests; null: it is not"),
    keeps_awake: z.array(z.string()).describe("What keeps it from being paused, if anything does"),
    last_touch: z
      .object({ what: z.string(), seconds_ago: z.int() })
      .nullable()
      .describe("What last asked something of it, since the daemon started"),
    started_from_disk: z
      .string()
      .nullable()
      .describe("Why it lost its memory at its last start; null: it did not"),
    panic_console: z
      .string()
      .nullable()
      .describe("The end of its console, when its last machine ended by a panic of its kernel"),
    root_read_only: z
      .boolean()
      .nullable()
      .describe(
        "Its kernel takes no more writes to its file system, which a repair may put right; null: it was not asked",
      ),
    failed_starts: z
      .object({ in_a_row: z.int(), reason: z.string(), rest_seconds: z.int() })
      .nullable()
      .describe(
        "Starts that failed since it last ran, the last reason, and how long requests do not start it",
      ),
    open_streams: z
      .int()
      .describe("Commands, attached sessions, transfers and connections that keep it awake"),
    idle_seconds: z.int(),
    changes_in_seconds: z.int().nullable().describe("When that changes if nothing happens"),
    changes_to: Thermal.nullable(),
  })
  .meta({ id: "Why" })
export type Why = z.infer<typeof Why>
