/**
 * Prepares a host's data directory: keys, database, first user, kernel, kit, image, template. Finished steps are
 * skipped, so a repeat is safe and continues after a failed step.
 */

import { chmodSync, existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { defaultListen, limits } from "@bhatti/contract/limits"
import agentFile from "../dist/lohar" with { type: "file" }
import { writeClientConfig } from "./cli/client-config.ts"
import type { InitOptions } from "./cli/operator.ts"
import { readClientFile, readSaved } from "./cli/settings.ts"
import { loadConfig } from "./config.ts"
import { templateSpec } from "./core/template.ts"
import { ensureTemplate } from "./core/template-builds.ts"
import { OperatorUsers } from "./core/users.ts"
import { openCore } from "./daemon.ts"
import { imageNames } from "./image/artifacts.ts"
import { tendCache } from "./image/cache.ts"
import { healInstalled, installImage, installKernel } from "./image/install.ts"
import { buildKernel } from "./image/kernel.ts"
import { buildKit } from "./image/kit.ts"
import { installKit } from "./image/kits.ts"
import { buildImage, recipeNames } from "./image/rootfs.ts"
import { lockDataDir } from "./lock.ts"
import { forgetProbe } from "./machine/accelerator.ts"
import { deviceProblem } from "./machine/kvm-device.ts"
import { openStore, type Store } from "./store/store.ts"

const adminName = "admin"
const adminSandboxesMax = 1000

export async function init(options: InitOptions): Promise<void> {
  // Kernels and images hold nothing secret, and guests need the original modes of their files.
  process.umask(0o022)
  const { dataDir, report } = options
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new AppError("unavailable", "bhatti runs its sandboxes on Linux on x86-64 only", {
      retryable: false,
    })
  }
  const step = async <T>(name: string, work: () => Promise<T> | T): Promise<T> => {
    const startedAt = performance.now()
    const result = await work()
    report(`${name} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`)
    return result
  }

  if (options.imageOnly) return await step(`image ${options.image}`, () => installOnly(options))
  await step("data directory, keys and users", async () => {
    prepareDirectory(options)
    const store = await openStore({ dataDir })
    try {
      await prepareAdmin(store, options)
    } finally {
      await store.close()
    }
  })
  const kernel = await step("kernel", async () => {
    const built = await buildKernel({
      cacheDir: options.cacheDir,
      agentPath: agentFile,
      report: told(report),
    })
    await installKernel(dataDir, built)
    return built
  })
  const { cacheDir } = options
  const kit = await step("kit", async () => {
    const built = await buildKit({ cacheDir, kernel, report: told(report) })
    await installKit(dataDir, built)
    return built
  })
  const used = [kernel.dir, kernel.modulesDir, kit.file]
  for (const name of await imagesToInstall(options)) {
    await step(`image ${name}`, async () => {
      const built = await buildImage({ name, cacheDir, kernel, report: told(report) })
      await installImage(dataDir, built)
      used.push(built.file)
    })
  }
  for (const { message } of await healInstalled(dataDir, cacheDir))
    report(`  ${message}, and the cache has no other: put it back from a backup`)
  await tendCache(cacheDir, { used, nowMs: Date.now() })
  await step("template", () => prepareTemplate(options))
}

/** The image's modules are the newest kernel's, which need not be the installed one: guests have those of the kit. */
async function installOnly({
  dataDir,
  cacheDir,
  image: name = "",
  report: tell,
}: InitOptions): Promise<void> {
  if (!existsSync(join(dataDir, "images")))
    throw new AppError("not_found", `${dataDir} is not prepared`, {
      subject: { kind: "installation", data_dir: dataDir },
    })
  const report = told(tell)
  const kernel = await buildKernel({ cacheDir, agentPath: agentFile, report })
  await installImage(dataDir, await buildImage({ name, cacheDir, kernel, report }))
}

/** The default first, then the requested one, and the installed ones, which get the same updates. */
async function imagesToInstall({ dataDir, image }: InitOptions): Promise<Set<string>> {
  const installed = (await imageNames(dataDir)).filter((name) => recipeNames.includes(name))
  return new Set([limits.imageDefault, ...(image === undefined ? [] : [image]), ...installed])
}

function told(report: InitOptions["report"]) {
  return ({ message }: { message: string }) => report(`  ${message}`)
}

function prepareDirectory({ dataDir, listen, report }: InitOptions): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  chmodSync(dataDir, 0o700)
  const path = join(dataDir, "config.yaml")
  if (existsSync(path)) {
    const { listen: kept } = loadConfig({ dataDir }, {})
    if (listen !== undefined && listen !== kept)
      report(`  ${path} stays as it is: the daemon answers on ${kept}, not on ${listen}`)
    return
  }
  writePrivately(
    path,
    `# The daemon's configuration; docs/configuration.md lists every key.\nlisten: ${listen ?? defaultListen}\n`,
  )
}

async function prepareAdmin(store: Store, options: InitOptions): Promise<void> {
  const users = new OperatorUsers(store)
  const hasAdmin = (await users.list()).some(({ name }) => name === adminName)
  if (hasAdmin && !options.writeClientConfig) return

  const file = options.writeClientConfig ? await readClientFile(process.env) : undefined
  const settings = file && readSaved(file)
  const url = localUrl(options)
  const speaksElsewhere = settings?.url !== undefined && settings.url !== url
  if (speaksElsewhere) {
    options.report(`  ${file?.path} points to ${settings.url} and stays unchanged`)
    if (hasAdmin) return
  } else if (settings?.token !== undefined && (await store.users.findByKey(settings.token))) {
    return
  }

  const { key } = hasAdmin
    ? await users.rotateKey(adminName)
    : await users.create({
        name: adminName,
        maxSandboxes: adminSandboxesMax,
        maxCpus: Math.min(limits.cpusMax, Math.max(4, cpus().length)),
        maxMemoryMib: Math.floor(totalmem() / 1024 / 1024),
      })
  if (hasAdmin) options.report(`  user ${adminName} has a new key; copies of the old one no longer work`)
  if (file && !speaksElsewhere) {
    await writeClientConfig(file, { url, token: key, caFile: "keep" }, process.env)
    options.report(`  ${file.path} has the key of user ${adminName}`)
  } else {
    options.report(`  key of user ${adminName}, shown once: ${key}`)
  }
}

function localUrl(options: InitOptions): string {
  const { listen } = loadConfig({ dataDir: options.dataDir }, {})
  const at = listen.lastIndexOf(":")
  const host = listen.slice(0, at)
  const isEverywhere = ["0.0.0.0", "[::]", "127.0.0.1"].includes(host)
  return `http://${isEverywhere ? "localhost" : host}:${listen.slice(at + 1)}`
}

/** Writes atomically, and never readable by others. */
function writePrivately(path: string, text: string): void {
  const beside = `${path}.${process.pid}`
  writeFileSync(beside, text, { mode: 0o600, flag: "wx" })
  renameSync(beside, path)
}

/** A running daemon makes its own templates. */
async function prepareTemplate({ dataDir, report, probe }: InitOptions): Promise<void> {
  const config = loadConfig({ dataDir }, {})
  if (probe) await forgetProbe({ dataDir })
  let lock: Disposable
  try {
    lock = lockDataDir(dataDir)
  } catch (error) {
    if (!(error instanceof AppError && error.code === "conflict")) throw error
    report("  the running daemon makes it")
    if (probe) report("  it tries KVM again when it is restarted: sudo systemctl restart bhatti")
    return
  }
  using _lock = lock
  process.umask(0o077)
  const quiet = { info() {}, warn() {}, error: console.error }
  await using opened = await openCore({ ...config, data_dir: dataDir }, quiet)
  const { core, accelerator } = opened
  report(`  accelerator ${accelerator.accelerator}: ${accelerator.reason}`)
  if (accelerator.accelerator === "tcg" && config.accel === "auto" && deviceProblem() === undefined)
    report("  if that was for a passing reason, try again before sandboxes are made: bhatti init --probe")
  await ensureTemplate(core, await templateSpec(core))
}
