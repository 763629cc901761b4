/**
 * The sandbox that a stage's steps run in: one of its user's, with that user's limits, rules of the network and quota.
 * Its row is marked as unfinished for its whole life, so a daemon that starts removes it.
 */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessEnd, ProcessStart } from "@bhatti/contract/guest"
import type { ImageConfig } from "@bhatti/contract/image-config"
import { clonedMib } from "../../rules/host-memory.ts"
import type { BuildStep } from "../../store/build-cache.ts"
import { specOf } from "../../store/sandbox-spec.ts"
import type { SandboxRecord } from "../../store/sandboxes.ts"
import type { Account } from "../../store/users.ts"
import { sleep } from "../clock.ts"
import { startNew } from "../create.ts"
import { checkSizeLimits, checkSpace } from "../create-checks.ts"
import { removeFailed } from "../destroy.ts"
import type { Guest, Template, TemplateSpec } from "../host.ts"
import { machineOf } from "../machine-of.ts"
import { policyAskedFor } from "../policy.ts"
import { bootFromDisk } from "../power.ts"
import { runInGuest } from "../run-in-guest.ts"
import { trimGuest } from "../trim.ts"
import { keepStep } from "./cache.ts"
import type { ForBuild } from "./for-build.ts"

export type BuilderSize = { cpus: number; memoryMib: number }
/** A template of the stage's image, or the disk after one of its steps. */
export type BuilderFrom = { spec: TemplateSpec } | { step: BuildStep; isOwnKind: boolean }

/** The kit's programs, since an image may have none. */
export const applets = "/run/bhatti/kit/applets"
const runDeadlineMs = 2 * 3_600_000
const ownDeadlineMs = 600_000
const trimMs = 2000
const lookEveryMs = 1000

/** Commands name their user, directory and variables themselves. */
const noDefaults: ImageConfig = {
  ...{ user: "", workdir: "", env: {}, entrypoint: [], cmd: [], ports: [], labels: {} },
}

export class Builder implements AsyncDisposable {
  readonly record: SandboxRecord
  readonly guest: Guest
  readonly template: Template
  readonly #core: ForBuild
  readonly #account: Account
  readonly #undo: AsyncDisposableStack

  private constructor(
    core: ForBuild,
    account: Account,
    about: { record: SandboxRecord; guest: Guest; template: Template; undo: AsyncDisposableStack },
  ) {
    this.#core = core
    this.#account = account
    this.record = about.record
    this.guest = about.guest
    this.template = about.template
    this.#undo = about.undo
  }

  static async start(
    core: ForBuild,
    account: Account,
    { name, from, size, signal }: { name: string; from: BuilderFrom; size: BuilderSize; signal: AbortSignal },
  ): Promise<Builder> {
    checkSizeLimits(account, size)
    await checkSpace(core)
    await using undo = new AsyncDisposableStack()
    using _memory = core.memory.promise(clonedMib({}))
    const wanted = specOf({
      ...imageOf(from),
      ...size,
      env: {},
      secretNames: [],
      labels: { "bhatti.build": name },
      netPolicy: policyAskedFor(core),
    })
    const record = await core.store.sandboxes.addUnfinished(
      account,
      { ...wanted, name, usedMib: 1, lifetime: core.lifetimes.begin(wanted) },
      core.host.machines,
    )
    undo.use(await holdTurn(core, record))
    signal.throwIfAborted()
    await begin(core, record, from, signal)
    const now = await core.store.sandboxes.get(record.id)
    const guest = core.guests.get(record.id)
    if (!now?.templateId || !guest) throw new AppError("unavailable", `the builder "${name}" did not start`)
    const template = await core.host.templates.get(now.templateId)
    return new Builder(core, account, { record: now, guest, template, undo: undo.move() })
  }

  /** Runs a step's work; throws when the user's quota or the host's disk is used up meanwhile, or after it. */
  async withinRoom(signal: AbortSignal, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const stop = new AbortController()
    using _watch = this.#watchSpace(stop)
    try {
      const over = AbortSignal.any([signal, stop.signal])
      await work(over)
      // Files that are still in the guest's memory take no space yet.
      await this.tool(["sync"], over)
    } catch (error) {
      signal.throwIfAborted()
      stop.signal.throwIfAborted()
      throw error
    }
    if ((await this.#leftMib()) >= 0) return
    // Files that the step has removed count until the guest trims them.
    await trimGuest(this.#core, this.record, this.guest, { budgetMs: trimMs })
    if ((await this.#leftMib()) < 0) throw short("your disk quota is used up")
  }

  /** Runs a program until it ends, or kills it when the signal aborts. */
  async run(
    command: Pick<ProcessStart, "argv" | "cwd" | "env" | "user">,
    { onOutput, signal }: { onOutput: (channel: string, bytes: Uint8Array) => void; signal: AbortSignal },
  ): Promise<ProcessEnd> {
    const process = this.guest.processes.start({ ...command, timeoutMs: runDeadlineMs, onDisconnect: "kill" })
    const kill = () => process.kill("the build")
    signal.addEventListener("abort", kill, { once: true })
    try {
      if (signal.aborted) kill()
      for await (const { channel, bytes } of process.output) onOutput(channel, bytes)
      const outcome = await process.result
      signal.throwIfAborted()
      if (outcome.state !== "ended") throw new AppError("unavailable", "the command was left")
      return outcome.ended
    } catch (error) {
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener("abort", kill)
    }
  }

  /** Runs a program of the kit as root, which has to succeed. */
  async tool(words: string[], signal: AbortSignal): Promise<void> {
    const argv = [`${applets}/${words[0]}`, ...words.slice(1)]
    let printed = ""
    const { exitCode } = await this.run(
      { argv, user: "0", cwd: "/" },
      {
        signal,
        onOutput: (_, bytes) => (printed = (printed + new TextDecoder().decode(bytes)).slice(-1000)),
      },
    )
    if (exitCode !== 0)
      throw new AppError("unavailable", `${words[0]} failed in the builder: ${printed.trim() || exitCode}`)
  }

  /** Keeps the disk as it is now in the build cache. Returns undefined if the quota has no room for it. */
  async keep(key: string, spared: ReadonlySet<string>, signal: AbortSignal): Promise<BuildStep | undefined> {
    const { imageName, imageHash, diskMib } = this.record
    const neededMib = Math.ceil(await this.#core.host.disks.measureMib(this.record.id, "overlay"))
    const step = { key, templateId: this.template.id, imageName, imageHash, diskMib }
    return await keepStep(this.#core, this.#account, { step, neededMib, spared }, (id) =>
      this.copyTo(id, signal),
    )
  }

  /** Copies the disk into a draft while its file system is frozen, so that it is whole without its journal. */
  async copyTo(draftId: string, signal: AbortSignal): Promise<void> {
    const { machines, snapshots } = this.#core.host
    const now = await this.#core.store.sandboxes.get(this.record.id)
    const machine = now && machineOf(now)
    if (!machine) throw new AppError("unavailable", "the builder's machine has ended")
    await trimGuest(this.#core, this.record, this.guest, { budgetMs: trimMs })
    await snapshots.begin(draftId)
    await this.tool(["fsfreeze", "--freeze", "/"], signal)
    try {
      await machines.pause(machine)
      try {
        await snapshots.capture({ id: draftId, sandboxId: this.record.id, storedMemory: false, signal })
      } finally {
        await machines.resume(machine)
      }
    } finally {
      await this.#thaw()
    }
  }

  /** Also after a cancel: nothing else could run. */
  async #thaw(): Promise<void> {
    const argv = [`${applets}/fsfreeze`, "--unfreeze", "/"]
    await runInGuest(this.guest, { argv, user: "0", timeoutMs: ownDeadlineMs })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync()
  }

  /** The builder's turn is taken, so nothing else pauses it. */
  #watchSpace(stop: AbortController): Disposable {
    const core = this.#core
    const over = new AbortController()
    const watch = async () => {
      while (!over.signal.aborted) {
        await sleep(core.clock, lookEveryMs, over.signal)
        if (over.signal.aborted) return
        if (await core.space.isShort()) throw short("the host's disk is nearly full")
        if ((await this.#leftMib()) < 0) throw short("your disk quota is used up")
      }
    }
    watch().catch((error: unknown) => stop.abort(error))
    return { [Symbol.dispose]: () => over.abort() }
  }

  /** With the disk as it is now, not as it was last measured. */
  async #leftMib(): Promise<number> {
    const { store, host } = this.#core
    await store.diskUse.setUsed(this.record.id, await host.disks.measureMib(this.record.id, "counted"))
    return await store.diskUse.leftMib(this.#account.id)
  }
}

function short(what: string): AppError {
  return new AppError("limit_exceeded", `the build was ended: ${what}`, {
    hint: "destroy a sandbox, delete images or snapshots, or ask the operator for more room",
  })
}

function imageOf(from: BuilderFrom) {
  if ("step" in from) {
    const { imageName, imageHash, diskMib } = from.step
    return { imageName, imageHash, diskMib, imageConfig: from.isOwnKind ? null : noDefaults }
  }
  const { image } = from.spec
  return {
    ...{ imageName: image.name, imageHash: image.hash, diskMib: image.diskMib },
    imageConfig: image.config ? noDefaults : null,
  }
}

/** Holds its turn until it is disposed, which removes the sandbox. */
async function holdTurn(core: ForBuild, record: SandboxRecord): Promise<AsyncDisposable> {
  const taken = Promise.withResolvers<void>()
  const over = Promise.withResolvers<void>()
  const held = core.turns.take(record.id, async () => {
    taken.resolve()
    await over.promise
    if (await core.store.sandboxes.get(record.id)) await removeFailed(core, record)
  })
  await taken.promise
  return {
    async [Symbol.asyncDispose]() {
      over.resolve()
      await held
    },
  }
}

async function begin(
  core: ForBuild,
  record: SandboxRecord,
  from: BuilderFrom,
  signal: AbortSignal,
): Promise<void> {
  if ("spec" in from) {
    await startNew(core, record, {}, { spec: from.spec, secrets: {}, pooled: undefined, signal })
    return
  }
  const { step } = from
  const template = await core.host.templates.get(step.templateId)
  await core.host.images.checkImage({ name: step.imageName, hash: step.imageHash })
  await core.store.sandboxes.setTemplate(record.id, template.id)
  await core.host.snapshots.place({ id: step.id, sandboxId: record.id, signal })
  await bootFromDisk(core, record, template, "it continues a build")
}
