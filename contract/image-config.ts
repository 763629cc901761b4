/**
 * The configuration that an image brings along, after the OCI image specification: which user commands run as, where,
 * with which variables, and what it is made to run. Images of our own have none.
 */

import { z } from "zod"
import { limits } from "./limits.ts"

export const Argument = z
  .string()
  .max(limits.execRequestBytesMax)
  .refine((value) => !value.includes("\0"), "an argument cannot hold a NUL")

const Text = z.string().refine((text) => !text.includes("\0"), "a text cannot hold a NUL")
const Words = z.array(Argument).max(limits.execArgsMax)
const lengthOf = (record: Record<string, string>) =>
  Object.entries(record).reduce((sum, [name, value]) => sum + name.length + value.length + 2, 0)

export const ImageConfig = z
  .object({
    user: Text.max(limits.guestUserSpecMax).describe("USER or USER:GROUP, names or ids; empty: root"),
    workdir: Text.max(limits.guestPathMax).describe("Working directory; made if missing; empty: /"),
    env: z
      .record(
        Text.min(1).refine((name) => !name.includes("="), "a variable's name cannot hold ="),
        Text,
      )
      .refine(
        (env) => lengthOf(env) <= limits.envBytesMax,
        `at most ${limits.envBytesMax} bytes of variables`,
      )
      .describe("Variables of every command, unless the sandbox or the request has its own"),
    entrypoint: Words.describe("Program and its first arguments; an empty list: none"),
    cmd: Words.describe(
      "Further arguments, which a caller replaces; without an entrypoint the program itself",
    ),
    ports: z.array(z.int().min(1).max(65_535)).describe("TCP ports that its program listens on"),
    labels: z
      .record(Text, Text)
      .refine(
        (labels) => lengthOf(labels) <= limits.imageLabelsBytesMax,
        `at most ${limits.imageLabelsBytesMax} bytes of labels`,
      ),
  })
  .meta({ id: "ImageConfig" })
export type ImageConfig = z.infer<typeof ImageConfig>
