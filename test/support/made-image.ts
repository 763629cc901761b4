/** Images of strangers, made in a test from a directory tree and put where pulled ones are. */

import {
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { limits } from "@bhatti/contract/limits"
import { readImage } from "../../src/image/artifacts.ts"
import { installImage } from "../../src/image/install.ts"
import type { ImageManifest } from "../../src/image/manifest.ts"
import { diskDigest } from "../../src/image/sparse.ts"

const usual: ImageConfig = { user: "", workdir: "", env: {}, entrypoint: [], cmd: [], ports: [], labels: {} }

/** A tree and its disk, which images with several configurations may share. */
export class MadeDisk implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "bhatti-image-"))
  readonly tree = join(this.#directory, "tree")

  constructor() {
    mkdirSync(this.tree)
  }

  /** Installs an image of the tree. */
  async install(
    dataDir: string,
    name: string,
    config: Partial<ImageConfig>,
    { sizeMib = 8192 }: { sizeMib?: number } = {},
  ): Promise<void> {
    const place = mkdtempSync(join(this.#directory, "built-"))
    const file = join(place, "disk.raw")
    writeFileSync(file, "")
    truncateSync(file, sizeMib * 1024 * 1024)
    const layout = [
      "-b",
      "4096",
      "-m",
      "0",
      "-J",
      "size=32",
      "-E",
      "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
    ]
    succeed([
      "mke2fs",
      "-q",
      "-F",
      "-t",
      "ext4",
      ...layout,
      "-U",
      "6b697400-0000-4000-8000-000000000001",
      "-d",
      this.tree,
      file,
    ])
    const digest = await diskDigest(file)
    const manifest: ImageManifest = {
      kind: "image",
      hash: digest.slice(0, 16),
      name,
      sizeMib,
      digest,
      kernelVersion: "none",
      config: { ...usual, ...config },
    }
    writeFileSync(join(place, "manifest.json"), JSON.stringify(manifest))
    await installImage(dataDir, { name, hash: manifest.hash, file, sizeMib })
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** Installs an image with the default one's disk and a start command of its own, as a recipe with one gives it. */
export async function installWithPrograms(
  dataDir: string,
  name: string,
  programs: { start: string; ready: string },
): Promise<void> {
  const { hash, sizeMib, file } = await readImage(dataDir, limits.imageDefault)
  const place = mkdtempSync(join(dataDir, "..", "built-"))
  try {
    const manifest = JSON.parse(readFileSync(file.replace(/raw$/, "json"), "utf8")) as ImageManifest
    writeFileSync(join(place, "manifest.json"), JSON.stringify({ ...manifest, name, programs }))
    linkSync(file, join(place, "disk.raw"))
    await installImage(dataDir, { name, hash, file: join(place, "disk.raw"), sizeMib })
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

/** Puts busybox of the installation's kit into a tree, with its programs' names in a folder. */
export function addBusybox(dataDir: string, tree: string, folder: string): void {
  const [kit = ""] = readdirSync(join(dataDir, "kits")).filter((name) => name.endsWith(".raw"))
  const target = join(tree, folder, "busybox")
  mkdirSync(join(tree, folder), { recursive: true })
  succeed(["debugfs", "-R", `dump /bin/busybox ${target}`, join(dataDir, "kits", kit)])
  succeed(["chmod", "755", target])
}

/** Names for programs of busybox beside it. */
export function linkBusybox(tree: string, folder: string, names: readonly string[]): void {
  for (const name of names) symlinkSync("busybox", join(tree, folder, name))
}

/** A static program that needs nothing of an image. */
export function buildGo(source: string, target: string): void {
  const place = mkdtempSync(join(tmpdir(), "bhatti-go-"))
  try {
    writeFileSync(join(place, "main.go"), source)
    succeed(
      ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", join(place, "program"), join(place, "main.go")],
      {
        CGO_ENABLED: "0",
        GOFLAGS: "-mod=mod",
      },
    )
    cpSync(join(place, "program"), target)
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

export function succeed(command: string[], env: Record<string, string> = {}): void {
  const { exitCode, stderr } = Bun.spawnSync(command, { env: { ...process.env, ...env } })
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`)
}
