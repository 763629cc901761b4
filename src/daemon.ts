/**
 * The daemon: opens its resources, wires them together, repairs the remains of a crash, and serves until it is stopped.
 */

import { existsSync } from "node:fs"
import { join } from "node:path"
import type { Config } from "@bhatti/contract/config"
import type { AppError } from "@bhatti/contract/errors"
import { trust } from "@bhatti/contract/trust"
import { pino, stdSerializers } from "pino"
import jailFile from "../dist/jail" with { type: "file" }
import zygoteFile from "../dist/zygote" with { type: "file" }
import { type ConfigFlags, loadConfig, overruledFile } from "./config.ts"
import { newCore } from "./core/assemble.ts"
import { type Log, withShortTexts } from "./core/bounded-log.ts"
import { cleanUp } from "./core/clean-up.ts"
import type { Core, CoreSettings } from "./core/core.ts"
import type { Host } from "./core/host.ts"
import { wakeKeptHot } from "./core/kept-hot.ts"
import { keepRows, RowKeeper } from "./core/kept-rows.ts"
import { reconcile } from "./core/reconcile.ts"
import { saveAll } from "./core/shutdown.ts"
import { stopTasks } from "./core/tasks.ts"
import { templateSpec } from "./core/template.ts"
import { ensureTemplate } from "./core/template-builds.ts"
import { Backups } from "./disk/backups.ts"
import { Disks } from "./disk/disks.ts"
import { KeptRows } from "./disk/kept-rows.ts"
import { Snapshots } from "./disk/snapshot-directories.ts"
import { HostDownloads, ownProgram } from "./downloads.ts"
import { createE2b } from "./e2b/app.ts"
import { RequestRates } from "./gate/request-rates.ts"
import { openGuest } from "./guest/guest.ts"
import { readGuestDefaults } from "./guest-defaults.ts"
import { createApp } from "./http/app.ts"
import { listenForOperator } from "./http/operator-socket.ts"
import { listenPrivately } from "./http/server.ts"
import { listImages, readImage, readKernel, readKernelFor } from "./image/artifacts.ts"
import { ArtifactChecks } from "./image/checks.ts"
import { removeUnusedArtifacts } from "./image/clean-up.ts"
import { installHostImage } from "./image/host-images.ts"
import { readKitFor } from "./image/kits.ts"
import { repairKernel } from "./image/repair.ts"
import { recipeSummaries } from "./image/rootfs.ts"
import { openPulls } from "./image-pulls.ts"
import { forbidCoreFiles } from "./lib/posix.ts"
import { version } from "./lib/version.ts"
import { lifetimesOf } from "./lifetime-settings.ts"
import { lockDataDir } from "./lock.ts"
import { type AcceleratorReport, chooseAccelerator } from "./machine/accelerator.ts"
import { Cgroups, diskOf } from "./machine/cgroups.ts"
import { openJail } from "./machine/confinement.ts"
import { findQemu } from "./machine/fingerprint.ts"
import { Machines } from "./machine/machines.ts"
import { raiseOwnSession } from "./machine/process.ts"
import { TapNetwork } from "./network/tap-network.ts"
import { makePrivate } from "./privacy.ts"
import { Front } from "./proxy/front.ts"
import { openStore } from "./store/store.ts"
import { beside } from "./surfaces.ts"

/** How long clients of commands may take to hear that the daemon stops. */
const lastAnswersMs = 1000
const mebibyte = 1024 * 1024

/** Lets a test wrap the host. */
export type Seam = { wrapHost?: (host: Host) => Host }

const errorText = (error: unknown) => withShortTexts(stdSerializers.err(error as Error))

/** Runs until SIGTERM or SIGINT. Sandboxes keep running; the next daemon reconnects to them. */
export async function serve(flags: ConfigFlags, seam: Seam = {}): Promise<void> {
  // Files made here are for this user only, whatever the parent's umask.
  process.umask(0o077)
  // The daemon's memory holds users' secrets.
  forbidCoreFiles()
  if (process.getuid?.() === 0) raiseOwnSession()
  const config = loadConfig(flags, process.env)
  const notes = makePrivate(config.data_dir)
  using _lock = lockDataDir(config.data_dir)
  const log = pino({
    level: config.log_level,
    serializers: { error: errorText, cause: errorText },
  })
  await using daemon = await openCore(config, log, seam)
  const { core, accelerator, network } = daemon
  log.info({ version, ...accelerator, data_dir: config.data_dir }, "starting")
  if (flags.configPath === undefined && !existsSync(join(config.data_dir, "config.yaml")))
    notes.push(`there is no ${join(config.data_dir, "config.yaml")}, so the defaults hold`)
  const overruled = overruledFile(flags, process.env)
  if (overruled !== undefined)
    notes.push(`${overruled}, named by BHATTI_CONFIG, is ignored: an option overrides it`)
  for (const note of [...notes, ...core.store.notes]) log.warn({}, note)

  // A bug in one request must not end the daemon for everybody; it is logged with its stack.
  process.on("unhandledRejection", (error) => core.log.error({ error }, "unhandled rejection"))

  core.events.record({ type: "daemon.started", meta: { version, accelerator: accelerator.accelerator } })
  const { settled } = await reconcile(core)
  void settled.then(() => log.info("all running sandboxes are reconnected or given up"))
  const rates = new RequestRates(config.rate_limits)
  const apiHosts = [config.domain, ...config.api_hosts]
  const { allowed_origins: allowedOrigins } = config
  const e2b = config.e2b === "on" ? createE2b(core, { apiHosts, allowedOrigins, rates }) : undefined
  const app = createApp(
    core,
    {
      version,
      accelerator: accelerator.accelerator,
      acceleratorReason: accelerator.reason,
      warnings: warningsOf(config, accelerator),
    },
    {
      apiHosts,
      allowedOrigins,
      rates,
      trustedProxies: config.trusted_proxies,
      metricsToken: config.metrics_token,
      install: {
        downloads: new HostDownloads({ directory: join(config.data_dir, "clients"), program: ownProgram() }),
        rate: config.rate_limits.install,
      },
    },
  )
  const apiSocketPath = join(config.data_dir, "api.sock")
  const server = listenPrivately(app, apiSocketPath, core.log)
  const operator = listenForOperator(core, join(config.data_dir, "operator.sock"), { version })
  const front = new Front(core, {
    address: config.listen,
    zone: { domain: config.domain, apiHosts: config.api_hosts, ...e2b?.names },
    api: { answer: beside(app, e2b), socketPath: apiSocketPath },
    trustedProxies: config.trusted_proxies,
    rateLimits: config.rate_limits,
    tls: tlsOf(config),
  })
  process.on("SIGHUP", () => front.reloadCertificate())
  log.info({ listen: config.listen }, "ready")
  void warmDefaultTemplate(core)
  void wakeKeptHot(core)
  const stopping = new AbortController()
  void core.events.run(stopping.signal)
  const loops = [
    core.thermal.run(stopping.signal),
    core.lifetimes.run(stopping.signal),
    core.space.run(stopping.signal),
    core.keys.run(stopping.signal),
    network?.guard(stopping.signal, (what, error) => core.log.error({ error }, what)),
    cleanUp(core, stopping.signal),
    keepRows(core, stopping.signal),
  ]

  const signal = await stopSignal()
  log.info({ signal, on_stop: config.on_stop }, "stopping")
  stopping.abort()
  await Promise.all([...loops, core.pool.empty(), core.zygotes.empty(), stopTasks(core)])
  front.stopListening()
  // Without clients of commands nobody needs to hear of the end.
  if (core.endings.stopDaemon() > 0) await front.awaitAnswers(lastAnswersMs)
  // From here on no request can wake a sandbox that is being saved.
  front.stop()
  // A task may have begun while the others ended.
  await stopTasks(core)
  daemon.images.close()
  if (config.on_stop === "snapshot") await saveInTime(core, config.stop_timeout)
  await network?.close()
  await new RowKeeper(core).keep()
  core.events.record({ type: "daemon.stopped", meta: { signal } })
  core.events.close()
  await operator.stop(true)
  await server.stop(true)
}

/** A second signal cuts it short: sandboxes not saved by then run on. */
async function saveInTime(core: Core, timeoutSec: number): Promise<void> {
  const hasten = new AbortController()
  void stopSignal().then(() => hasten.abort())
  const result = await saveAll(core, AbortSignal.any([hasten.signal, AbortSignal.timeout(timeoutSec * 1000)]))
  core.log.info(result, "saved the running sandboxes")
}

function tlsOf(config: Config): { certPath: string; keyPath: string } | undefined {
  const { tls_cert: certPath, tls_key: keyPath } = config
  return certPath !== undefined && keyPath !== undefined ? { certPath, keyPath } : undefined
}

function publicAddressOf(config: Config): CoreSettings["publicAddress"] {
  const listenPort = Number(config.listen.slice(config.listen.lastIndexOf(":") + 1))
  const scheme = config.public_scheme ?? (config.tls_cert === undefined ? "http" : "https")
  const schemePort = scheme === "https" ? 443 : 80
  const port = config.public_port ?? (config.public_scheme === undefined ? listenPort : schemePort)
  return { scheme, domain: config.domain, port }
}

/** Guarantees that this host cannot give. */
function warningsOf(config: Config, accelerator: AcceleratorReport): string[] {
  return [
    ...(accelerator.accelerator === "tcg" ? [trust.emulation] : []),
    ...(config.confinement === "reduced" ? [trust.reduced] : []),
    ...(process.getuid?.() === 0 ? [] : [trust.notRoot]),
  ]
}

export type OpenedCore = AsyncDisposable & {
  core: Core
  accelerator: AcceleratorReport
  /** The daemon closes it when it stops. A process that makes only a template must not: sandboxes may run. */
  network: TapNetwork | null
  /** The rules of its programs go with the daemon. */
  images: { close(): void }
}

/** Opens everything except the listening socket; `bhatti init` uses it to make the first template. */
export async function openCore(config: Config, log: Log, { wrapHost }: Seam = {}): Promise<OpenedCore> {
  await using undo = new AsyncDisposableStack()
  const qemu = findQemu()
  // A path that is not a data directory has no kernel, and gets no database.
  const kernel = await readKernel(config.data_dir)
  const onDamage = (error: AppError) => log.error({ error }, "a damaged file is no longer used")
  const checks = new ArtifactChecks(config.data_dir, onDamage)
  const store = await openStore({ dataDir: config.data_dir })
  undo.defer(() => store.close())

  const isRoot = process.getuid?.() === 0
  const network = config.network === "auto" ? (isRoot ? "tap" : "user") : config.network
  const uidBase = isRoot ? config.uid_base : undefined
  const { jail, qemus } = await openJail({
    dataDir: config.data_dir,
    qemu,
    forbidden: config.forbidden_qemu,
    launcher: jailFile,
    level: config.confinement,
    uid: uidBase,
  })

  const disks = new Disks({ dataDir: config.data_dir })
  const device = config.disk_mb_per_second > 0 ? diskOf(config.data_dir) : undefined
  const cgroups = Cgroups.open({
    mountPoint: "/sys/fs/cgroup",
    dataDir: config.data_dir,
    disk: device === undefined ? undefined : { device, bytesPerSec: config.disk_mb_per_second * mebibyte },
  })
  undo.defer(() => cgroups.close())
  const accelerator = await chooseAccelerator({
    wanted: config.accel,
    isKvmRequired: config.require_kvm,
    qemu: qemus.present,
    kernel,
    checkKernel: () => checks.kernel(kernel),
    dataDir: config.data_dir,
    jail,
    level: config.confinement,
    uid: uidBase,
    cgroups,
    silenceMaxSec: config.kvm_probe_seconds,
  })

  const snapshots = new Snapshots({ dataDir: config.data_dir, disks })
  const tapNetwork =
    network === "tap"
      ? new TapNetwork({
          dataDir: config.data_dir,
          subnet: config.subnet,
          upstreams: config.dns_upstreams,
          opened: config.allow_internal,
        })
      : null
  const whyCloned = whyMachinesAreCloned(config, { ...accelerator, uidBase })
  const machines = new Machines({
    dataDir: config.data_dir,
    qemus,
    accelerator: accelerator.accelerator,
    network,
    uidBase,
    launcher: jail.launcher,
    ...(whyCloned === undefined && { forks: { library: zygoteFile } }),
    confinement: config.confinement,
    cgroups,
    connect: (socketPath) => openGuest({ socketPath }),
    tapOf: (id) => tapNetwork?.tapOf(id),
    draftOf: (id) => snapshots.draftOf(id),
    onUnshared: (sandbox, error) =>
      log.warn({ sandbox, error }, "a machine's shared memory cannot be opened"),
    onDamage,
  })
  const images = openPulls(config, {
    isRouted: network === "tap",
    diskOfCopy: (copy) => snapshots.diskOf(copy),
  })
  const host: Host = {
    machines,
    templates: machines.templates,
    zygotes: machines.zygotes ?? null,
    disks,
    snapshots,
    network: tapNetwork,
    backups: new Backups({ dataDir: config.data_dir, draftOf: (id) => snapshots.draftOf(id) }),
    keptRows: new KeptRows({ dataDir: config.data_dir }),
    pulls: images.pulls,
    packs: images.packs,
    buildContexts: images.buildContexts,
    images: {
      recipes: recipeSummaries,
      install: (name, options) =>
        installHostImage({ dataDir: config.data_dir, cacheDir: config.cache_dir }, name, options),
      list: async () =>
        (await listImages(config.data_dir)).map(({ sizeMib, ...image }) => ({ ...image, diskMib: sizeMib })),
      readImage: async (name) => {
        const image = await checks.image(await readImage(config.data_dir, name))
        const { hash, file, sizeMib: diskMib, programs, services, initSystem, config: own } = image
        return { name, hash, file, diskMib, programs, services, initSystem, config: own }
      },
      readKernel: async (image) => {
        const kernel = await (image ? readKernelFor(config.data_dir, image) : readKernel(config.data_dir))
        const kit = await readKitFor(config.data_dir, kernel)
        return { ...(await checks.kernel(kernel)), kit: kit && (await checks.kit(kit)) }
      },
      checkImage: (image, options) => checks.imageOf(image, options),
      repairKernel,
      removeUnused: (neededImages) =>
        removeUnusedArtifacts(config.data_dir, {
          neededImages,
          neededKits: () => machines.kitsInUse(),
          nowMs: Date.now(),
        }),
    },
  }
  const core = newCore({
    store,
    host: wrapHost ? wrapHost(host) : host,
    log,
    settings: {
      thermal: {
        warmAfterMs: config.warm_after * 1000,
        coldAfterMs: config.cold_after * 1000,
        timerWindowMs: config.timer_window * 1000,
      },
      diskReserveMib: config.disk_reserve_mb,
      memoryReserveMib: config.memory_reserve_mb,
      templateDiskMib: config.template_disk_mb,
      pool: { sizeMax: config.pool, memoryMibMax: config.pool_memory_mb },
      whyCloned,
      forksWakes: config.fork_wakes,
      publicAddress: publicAddressOf(config),
      lifetimes: lifetimesOf(config),
      guestDefaults: readGuestDefaults(config),
      images: {
        defaultRegistry: config.default_registry,
        allowedRegistries: config.allowed_registries,
        areMadeAtNeed: config.images_at_need,
        imageMibMax: config.image_max_mb,
      },
    },
  })
  undo.defer(() => core.events.flush())
  undo.defer(() => {
    for (const guest of core.guests.values()) guest.close()
    core.guests.clear()
  })
  const opened = undo.move()
  return {
    core,
    accelerator,
    network: tapNetwork,
    images,
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  }
}

/** Returns why no machine of this host is forked, or undefined if a trial decides. */
function whyMachinesAreCloned(
  config: Config,
  { accelerator, uidBase }: { accelerator: "kvm" | "tcg"; uidBase: number | undefined },
): string | undefined {
  if (config.forks === "off") return "forks: off in config.yaml"
  if (accelerator === "kvm") return "machines run under KVM"
  if (uidBase === undefined || config.confinement !== "full")
    return "a machine is forked only where it has a user and namespaces of its own"
  return undefined
}

/** Makes the template early, so that the first create after a start does not wait for it. */
export async function warmDefaultTemplate(core: Core): Promise<void> {
  try {
    const spec = await templateSpec(core)
    const template = await ensureTemplate(core, spec)
    if (core.settings.pool.sizeMax > 0) core.zygotes.wants(spec, template)
    core.pool.wants(spec, template)
  } catch (error) {
    core.log.warn({ error }, "could not prepare the default template")
  }
}

function stopSignal(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve(signal))
  return promise
}
