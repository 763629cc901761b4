/** Reads the daemon's configuration: flags over file over defaults. */

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Config } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { defaultDataDir } from "@bhatti/contract/limits"
import { parseInput } from "@bhatti/contract/wording"
import { errorCodeOf } from "./lib/error-code.ts"

export type ConfigFlags = {
  configPath?: string
  dataDir?: string
  listen?: string
  accel?: Config["accel"]
}

type Environment = Record<string, string | undefined>

/**
 * An explicitly named file must exist; the default one, `config.yaml` in the data directory, may be missing. The
 * environment's file counts only if no data directory was given, since an explicit directory has its own configuration.
 */
export function loadConfig(flags: ConfigFlags, environment: Environment): Config {
  const named =
    flags.configPath ?? (flags.dataDir === undefined ? environment["BHATTI_CONFIG"] || undefined : undefined)
  const path = named ?? join(flags.dataDir ?? defaultDataDir, "config.yaml")
  const file = readFile(path, { isNeeded: named !== undefined })
  const overrides = {
    ...(flags.dataDir !== undefined && { data_dir: flags.dataDir }),
    ...(flags.listen !== undefined && { listen: flags.listen }),
    ...(flags.accel !== undefined && { accel: flags.accel }),
  }
  return parseInput(Config, { ...file, ...overrides }, `configuration ${path}: `)
}

/** Returns the environment's file if it is ignored, else undefined. */
export function overruledFile(flags: ConfigFlags, environment: Environment): string | undefined {
  const isOverruled = flags.configPath !== undefined || flags.dataDir !== undefined
  return isOverruled ? environment["BHATTI_CONFIG"] || undefined : undefined
}

function readFile(path: string, { isNeeded }: { isNeeded: boolean }): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (cause) {
    if (errorCodeOf(cause) === "ENOENT" && !isNeeded) return {}
    throw new AppError("invalid", `cannot read the configuration ${path}`, { cause })
  }
  if (!isNeeded && text.trim() === "") {
    throw new AppError("invalid", `the configuration ${path} is empty, possibly after a crash of the host`, {
      hint: "restore it, or remove it to use the defaults",
    })
  }
  let value: unknown
  try {
    value = Bun.YAML.parse(text)
  } catch (cause) {
    throw new AppError("invalid", `the configuration ${path} is not YAML`, { cause })
  }
  if (value === null || value === undefined) return {}
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new AppError("invalid", `the configuration ${path} is not a list of keys and values`)
  }
  const twice = keyGivenTwice(text)
  if (twice !== undefined) {
    throw new AppError("invalid", `the configuration ${path} has "${twice}" twice`, {
      hint: "remove one of the two lines",
    })
  }
  return value as Record<string, unknown>
}

/** The parser would silently take the last one. */
function keyGivenTwice(text: string): string | undefined {
  const keys: string[] = text.match(/^\w+(?=\s*:)/gm) ?? []
  return keys.find((key, index) => keys.indexOf(key) !== index)
}
