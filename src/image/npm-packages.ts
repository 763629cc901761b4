/**
 * Downloads tarballs from the npm registry that this host is configured for. Bun's own package manager, which is
 * part of this program, knows the registry's address; the recipe's digest decides whether a tarball is accepted.
 */

import { createHash } from "node:crypto"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { runProgram } from "../lib/program.ts"
import type { NpmPackage } from "./recipe.ts"
import type { Report } from "./report.ts"

const queryDeadlineMs = 60_000
const downloadDeadlineMs = 300_000

/** Writes `NAME.tgz` of each package into the directory. */
export async function fetchNpmPackages(
  packages: readonly NpmPackage[],
  directory: string,
  report: Report,
): Promise<void> {
  await mkdir(directory, { recursive: true })
  for (const one of packages) {
    report({ step: "image", message: `download ${one.name} ${one.version}` })
    await Bun.write(join(directory, `${one.name}.tgz`), await tarballOf(one))
  }
}

async function tarballOf({ name, version, integrity }: NpmPackage): Promise<Uint8Array> {
  const url = await addressOf(`${name}@${version}`)
  const bytes = await download(url, name)
  const found = `sha512-${createHash("sha512").update(bytes).digest("base64")}`
  if (found !== integrity) {
    throw new AppError(
      "unavailable",
      `the npm package ${name} ${version} does not match the recipe's checksum`,
      {
        hint: `expected ${integrity}, got ${found}`,
        retryable: false,
      },
    )
  }
  return bytes
}

async function addressOf(specifier: string): Promise<string> {
  const text = await runProgram([process.execPath, "pm", "view", specifier, "dist.tarball"], {
    deadlineMs: queryDeadlineMs,
    env: { BUN_BE_BUN: "1" },
  })
  return text.toString().trim()
}

async function download(url: string, name: string): Promise<Uint8Array> {
  const failure = (cause: unknown) =>
    new AppError("unavailable", `cannot download the npm package ${name}`, {
      hint: "check that the npm registry can be reached",
      cause,
    })
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(downloadDeadlineMs) })
    if (response.ok) return await response.bytes()
    throw failure(new Error(`${response.status} ${response.statusText}`))
  } catch (error) {
    throw error instanceof AppError ? error : failure(error)
  }
}
