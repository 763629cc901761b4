/**
 * An image's configuration as the OCI specification writes it, and as ours. Fields that say nothing about how its
 * programs run are not read.
 */
import { ImageConfig } from "@bhatti/contract/image-config"
import { z } from "zod"
import { refusal } from "./refusal.ts"

/** Builders write null for an empty list or object. */
const Words = z.array(z.string()).nullish()

export const OciConfig = z.object({
  architecture: z.string(),
  os: z.string(),
  rootfs: z.object({ type: z.literal("layers"), diff_ids: z.array(z.string()) }),
  config: z
    .object({
      User: z.string().nullish(),
      WorkingDir: z.string().nullish(),
      Env: Words,
      Entrypoint: Words,
      Cmd: Words,
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
})
export type OciConfig = z.infer<typeof OciConfig>

export function imageConfigOf({ config }: OciConfig): ImageConfig {
  const parsed = ImageConfig.safeParse({
    user: config?.User ?? "",
    workdir: config?.WorkingDir ?? "",
    env: environmentOf(config?.Env ?? []),
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    ports: portsOf(Object.keys(config?.ExposedPorts ?? {})),
    labels: config?.Labels ?? {},
  })
  if (parsed.success) return parsed.data
  const [first] = parsed.error.issues
  throw refusal(
    "bad_config",
    `the image's configuration holds a bad ${first?.path.join(".")}: ${first?.message}`,
  )
}

/** The other direction. It says no time, so that the same image has the same digest. */
export function ociConfigOf(config: ImageConfig, diffIds: readonly string[]) {
  const { user, workdir, env, entrypoint, cmd, ports, labels } = config
  return {
    architecture: "amd64",
    os: "linux",
    config: {
      ...(user !== "" && { User: user }),
      ...(workdir !== "" && { WorkingDir: workdir }),
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...(entrypoint.length > 0 && { Entrypoint: entrypoint }),
      ...(cmd.length > 0 && { Cmd: cmd }),
      ...(ports.length > 0 && { ExposedPorts: Object.fromEntries(ports.map((port) => [`${port}/tcp`, {}])) }),
      ...(Object.keys(labels).length > 0 && { Labels: labels }),
    },
    rootfs: { type: "layers", diff_ids: [...diffIds] },
  } satisfies OciConfig
}

/** A variable without a value is one to take from the host, as Docker has it; there is none to take here. */
function environmentOf(lines: string[]): Record<string, string> {
  const pairs = lines.map((line) => [line, line.indexOf("=")] as const).filter(([, at]) => at > 0)
  return Object.fromEntries(pairs.map(([line, at]) => [line.slice(0, at), line.slice(at + 1)]))
}

/** PORT, PORT/PROTOCOL and FIRST-LAST/PROTOCOL; UDP ports cannot be published. */
function portsOf(texts: string[]): number[] {
  const ports = new Set<number>()
  for (const text of texts) {
    const [, first, last, protocol = "tcp"] = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(\w+))?$/.exec(text) ?? []
    if (first === undefined || protocol !== "tcp") continue
    const end = Math.min(Number(last ?? first), 65_535)
    for (let port = Math.max(Number(first), 1); port <= end; port++) ports.add(port)
  }
  return [...ports].sort((a, b) => a - b)
}
