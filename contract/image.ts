/** Images: the root filesystems that sandboxes start from. Those of the host are available to every user. */

import { z } from "zod"
import { ImageId } from "./ids.ts"
import { Argument, ImageConfig } from "./image-config.ts"
import { limits } from "./limits.ts"

export const Image = z
  .object({
    id: ImageId.nullable().describe("null: an image of the host"),
    user_id: z.string().describe("Its owner; empty: the host"),
    is_own: z.boolean().describe("Whether it is yours, so that you may change it"),
    name: z.string(),
    reference: z.string().nullable().describe("What it was pulled as, with the registry; null: not pulled"),
    index_digest: z.string().nullable().describe("Digest that the reference named when it was pulled"),
    manifest_digest: z.string().nullable().describe("Digest of the manifest for its platform"),
    platform: z.string().nullable(),
    status: z
      .enum(["preparing", "ready"])
      .describe("preparing: its template is being made, and the first create may wait for it"),
    is_shared: z.boolean().describe("Whether every user may use it"),
    config: ImageConfig.nullable().describe("Its own configuration; null: an image of the host"),
    hash: z.string().describe("Changes with the content; sandboxes keep the version they were made from"),
    is_default: z.boolean().describe("Used when a create names no image"),
    size_mb: z.number().describe("Space on the host"),
    disk_size_mb: z
      .int()
      .describe("Size of its disk as a sandbox sees it, and the minimum disk size of its sandboxes"),
    kernel_version: z
      .string()
      .nullable()
      .describe("The kernel whose modules it holds; null: none, the host's are used"),
    created_at: z.iso.datetime().describe("When it was made on this host"),
  })
  .meta({ id: "Image" })
export type Image = z.infer<typeof Image>

/** An image that the host makes itself, of Debian's packages. */
export const HostImage = z
  .object({
    name: z.string(),
    summary: z.string(),
    is_installed: z.boolean().describe("Whether sandboxes can be made from it at once"),
    is_installable: z
      .boolean()
      .describe("Whether you may have it installed; the operator always can (images_at_need in config.yaml)"),
  })
  .meta({ id: "HostImage" })
export type HostImage = z.infer<typeof HostImage>

const ImageRef = z
  .string()
  .min(1)
  .max(255)
  .describe("[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST], as in Docker")

const NewImageName = z
  .string()
  .regex(limits.imageNamePattern, limits.imageNameRule)
  .describe("Name of the image, unique among yours. Default: the reference, without the default registry")

const Credential = z.strictObject({
  username: z.string().min(1).max(limits.registryWordMax),
  password: z.string().min(1).max(limits.registryWordMax),
})

const Auth = z.union([
  Credential,
  z
    .string()
    .max(2 * limits.registryWordMax)
    .regex(/^[^:]+:./, "write USER:TOKEN"),
])

export const RegistryHost = z
  .string()
  .toLowerCase()
  .regex(/^[a-z0-9][a-z0-9.-]{0,252}(:\d{1,5})?$/, "a registry is a host name, with a port if it is not 443")
  .describe("Host of the registry, with its port if it is not 443")

export const PullImage = z
  .strictObject({
    ref: ImageRef,
    name: NewImageName.optional(),
    platform: z.string().max(64).optional().describe("Such as linux/amd64, the platform of sandboxes"),
    auth: Auth.optional().describe(
      "For this pull alone: it is not stored. Without it a login that was stored is used",
    ),
    prepare: z
      .boolean()
      .default(true)
      .describe("Make a template at the end, so that the first create is fast"),
  })
  .meta({ id: "PullImage" })

export const ImportImageQuery = z.strictObject({
  name: NewImageName,
  prepare: z.enum(["true", "false"]).optional(),
})

const Words = z.array(Argument).max(limits.execArgsMax)

export const SaveImage = z
  .strictObject({
    name: NewImageName,
    config: z
      .strictObject({
        user: ImageConfig.shape.user.optional(),
        workdir: ImageConfig.shape.workdir.optional(),
        env: ImageConfig.shape.env.optional().describe("Added to the variables that are there"),
        entrypoint: Words.optional().describe("Program and its first arguments; the former cmd goes with it"),
        cmd: Words.optional().describe("Further arguments, or the program if there is no entrypoint"),
      })
      .optional()
      .describe("Replaces parts of the configuration of the image that the sandbox was made from"),
    prepare: z
      .boolean()
      .default(true)
      .describe("Make a template at the end, so that the first create is fast"),
  })
  .meta({ id: "SaveImage" })
const buildTextMax = 512 * 1024

/** The first line of a build's body; the directory, a tar archive, follows it. */
export const BuildImage = z
  .strictObject({
    name: NewImageName,
    dockerfile: z.string().max(buildTextMax),
    args: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).default({}),
    secrets: z
      .record(z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/), z.string().max(buildTextMax))
      .default({})
      .describe("For RUN --mount=type=secret: by id. They are not stored, and not in the image"),
    target: z.string().min(1).max(255).nullable().default(null).describe("The stage to end with"),
    no_cache: z.boolean().default(false),
    prepare: z.boolean().default(true).describe("Make a template, so that the first create is fast"),
    cpus: z.int().min(1).optional().describe("Processors of the builders"),
    memory_mb: z.int().min(64).optional().describe("Memory of the builders"),
  })
  .meta({ id: "BuildImage" })
export type BuildImage = z.input<typeof BuildImage>

export const PushImage = z
  .strictObject({
    ref: ImageRef.describe("[HOST[:PORT]/]REPOSITORY[:TAG], as in Docker"),
    auth: Auth.optional().describe(
      "For this push alone: it is not stored. Without it a login that was stored is used",
    ),
  })
  .meta({ id: "PushImage" })

export const TagImage = z.strictObject({ name: NewImageName }).meta({ id: "TagImage" })
export const DeletedImage = z.object({ status: z.literal("deleted") }).meta({ id: "DeletedImage" })
export const PrunedImages = z
  .object({
    deleted: z.array(z.string()),
    freed_mb: z.int().describe("With the disks of the build cache, which are removed too"),
  })
  .meta({ id: "PrunedImages" })

export const RegistryLogin = z
  .object({ host: RegistryHost, username: z.string(), created_at: z.iso.datetime() })
  .meta({ id: "RegistryLogin" })
export type RegistryLogin = z.infer<typeof RegistryLogin>
export const LogIn = Credential.extend({ host: RegistryHost }).meta({ id: "LogIn" })
export const LoggedOut = z.object({ status: z.literal("deleted") }).meta({ id: "LoggedOut" })
