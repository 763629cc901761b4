/**
 * Makes the disks of a build's stages: each from the deepest step that is in the cache, the steps behind it in a
 * builder. A builder stays until the build ends, since later stages may copy from it.
 */

import { AppError } from "@bhatti/contract/errors"
import { DockerfileError } from "../../rules/dockerfile/refusal.ts"
import type { BuildStep } from "../../store/build-cache.ts"
import type { Account } from "../../store/users.ts"
import { answerDeadlineMs } from "../awake.ts"
import type { BuildContext, Image, Template, TemplateSpec } from "../host.ts"
import { ensureTemplate } from "../template-builds.ts"
import { Builder, type BuilderFrom, type BuilderSize } from "./builder.ts"
import { removeStep, stepIdPrefix } from "./cache.ts"
import { copyFromBuilder, copyFromContext } from "./copy.ts"
import type { ForBuild } from "./for-build.ts"
import type { BuildOutput } from "./output.ts"
import { runStep, type Secrets } from "./run.ts"
import type { ReadyStage, ReadyStep } from "./stages.ts"

export type ExecutionOptions = {
  taskId: string
  stages: ReadonlyMap<string, ReadyStage>
  context: BuildContext
  secrets: Secrets
  /** Variables of every RUN that decide no content, such as a proxy's address. */
  ambient: Readonly<Record<string, string>>
  size: BuilderSize
  output: BuildOutput
  onStep: (text: string) => void
  usesCache: boolean
  signal: AbortSignal
}

/** The disk that a stage ends with. */
export type StageDisk = { template: Template; copy: { id: string; isDraft: boolean } | null }

export class Execution implements AsyncDisposable {
  readonly #core: ForBuild
  readonly #account: Account
  readonly #options: ExecutionOptions
  readonly #undo = new AsyncDisposableStack()
  readonly #builders = new Map<string, Builder>()
  /** Disks that this build has found or kept, by key. */
  readonly #kept = new Map<string, BuildStep>()

  constructor(core: ForBuild, account: Account, options: ExecutionOptions) {
    this.#core = core
    this.#account = account
    this.#options = options
  }

  async diskOf(stage: ReadyStage): Promise<StageDisk> {
    const last = stage.steps.at(-1)
    if (!last) {
      if ("stage" in stage.base) return await this.diskOf(this.#stage(stage.base.stage))
      return { template: await this.#template(stage.base.image), copy: null }
    }
    const cached = await this.#find(last)
    if (cached) {
      for (const step of stage.steps) this.#tell(stage, step, { isCached: true })
      return {
        template: await this.#core.host.templates.get(cached.templateId),
        copy: { id: cached.id, isDraft: false },
      }
    }
    const builder = await this.#builderOf(stage)
    const kept = this.#kept.get(last.key)
    if (kept) return { template: builder.template, copy: { id: kept.id, isDraft: false } }
    const id = `${stepIdPrefix}draft-${this.#options.taskId}`
    this.#undo.defer(() => this.#core.host.snapshots.remove(id))
    await builder.copyTo(id, this.#options.signal)
    return { template: builder.template, copy: { id, isDraft: true } }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync()
  }

  #stage(id: string): ReadyStage {
    const stage = this.#options.stages.get(id)
    if (!stage) throw new Error(`the build has no stage ${id}`)
    return stage
  }

  async #find({ key }: ReadyStep): Promise<BuildStep | undefined> {
    const own = this.#kept.get(key)
    if (own || !this.#options.usesCache) return own
    const found = await this.#core.store.buildCache.find(this.#account.id, key)
    if (found) this.#kept.set(key, found)
    return found
  }

  /** A running builder in which every step of the stage is done. */
  async #builderOf(stage: ReadyStage): Promise<Builder> {
    const known = this.#builders.get(stage.id)
    if (known) return known
    let { builder, done } = await this.#startDeepest(stage)
    if (!builder) {
      done = 0
      builder = await this.#start(stage, await this.#fromBase(stage))
    }
    for (const step of stage.steps.slice(0, done)) this.#tell(stage, step, { isCached: true })
    for (const step of stage.steps.slice(done)) {
      this.#options.signal.throwIfAborted()
      this.#tell(stage, step, { isCached: false })
      // The steps of another stage have errors of their own.
      const from = await this.#sourceOf(step)
      await builder
        .withinRoom(this.#options.signal, (signal) => this.#do(builder, step, { from, signal }))
        .catch((error: unknown) => {
          throw atLine(step, error)
        })
      if (step.kind !== "workdir" || step === stage.steps.at(-1)) await this.#keep(builder, step)
    }
    this.#builders.set(stage.id, builder)
    return builder
  }

  async #startDeepest(stage: ReadyStage): Promise<{ builder: Builder | undefined; done: number }> {
    for (let done = stage.steps.length; done > 0; done--) {
      const step = stage.steps[done - 1]
      const cached = step && (await this.#find(step))
      if (!cached) continue
      try {
        return { builder: await this.#start(stage, this.#fromStep(stage, cached)), done }
      } catch (error) {
        if (!(error instanceof AppError) || error.retryable || error.code !== "unavailable") throw error
        this.#core.log.warn(
          { step: cached.id, error },
          "a disk of the build cache is not whole; it is removed",
        )
        this.#kept.delete(cached.key)
        await removeStep(this.#core, cached)
      }
    }
    return { builder: undefined, done: 0 }
  }

  async #start(stage: ReadyStage, from: BuilderFrom): Promise<Builder> {
    const { taskId, size, signal } = this.#options
    const name = `build-${taskId.replace(/^task_/, "").slice(0, 8)}-${this.#builders.size + 1}-${stage.name}`
    return this.#undo.use(
      await Builder.start(this.#core, this.#account, {
        ...{ name: name.replaceAll(/[^a-zA-Z0-9-]/g, "-").slice(0, 60), from, size, signal },
      }),
    )
  }

  async #fromBase(stage: ReadyStage): Promise<BuilderFrom> {
    if ("image" in stage.base) return { spec: await this.#spec(stage.base.image) }
    const base = this.#stage(stage.base.stage)
    const last = base.steps.at(-1)
    if (!last) return await this.#fromBase(base)
    if (!(await this.#find(last))) await this.#builderOf(base)
    const step = await this.#find(last)
    if (step) return this.#fromStep(stage, step)
    throw new AppError("limit_exceeded", `your disk quota has no room for the stage "${base.name}"`, {
      hint: "delete images, snapshots or sandboxes",
    })
  }

  #fromStep(stage: ReadyStage, step: BuildStep): BuilderFrom {
    return { step, isOwnKind: this.#imageOf(stage).config === undefined }
  }

  #imageOf(stage: ReadyStage): Image {
    return "image" in stage.base ? stage.base.image : this.#imageOf(this.#stage(stage.base.stage))
  }

  /** Without the image's own programs: nothing but steps runs in a builder. */
  async #spec(image: Image): Promise<TemplateSpec> {
    const { authority } = this.#core.settings.guestDefaults
    const kernel = await this.#core.host.images.readKernel()
    const { cpus, memoryMib } = this.#options.size
    return { image, kernel, cpus, memoryMib, ...(authority && { authority: authority.digest }) }
  }

  async #template(image: Image): Promise<Template> {
    return await ensureTemplate(this.#core, await this.#spec(image), this.#options.signal)
  }

  #tell(stage: ReadyStage, step: ReadyStep, { isCached }: { isCached: boolean }): void {
    const { output, onStep } = this.#options
    const number = stage.steps.indexOf(step) + 1
    const text = `[${stage.name} ${number}/${stage.steps.length}] ${step.text}`
    onStep(text)
    output.line(isCached ? `${text} (cached)` : text)
  }

  async #do(
    builder: Builder,
    step: ReadyStep,
    { from, signal }: { from: Builder | undefined; signal: AbortSignal },
  ): Promise<void> {
    const { secrets, output, context, ambient } = this.#options
    if (step.kind === "run")
      return await runStep(
        builder,
        { ...step, env: { ...ambient, ...step.env } },
        { secrets, output, signal },
      )
    if (step.kind === "workdir") {
      const owner = { uid: 0, gid: 0 }
      await builder.guest.ask(
        { op: "makeDirectory", path: step.path, parents: true, mode: "0755", owner },
        { deadlineMs: answerDeadlineMs },
      )
      return
    }
    if (step.source) return await copyFromContext(builder, step, { source: step.source, context, signal })
    if (from) await copyFromBuilder(builder, step, { from, signal })
  }

  /** Builds the other stage that the step copies from, if it does. */
  async #sourceOf(step: ReadyStep): Promise<Builder | undefined> {
    if (step.kind !== "copy" || step.fromStage === null) return undefined
    const id = step.fromStage
    const stage = this.#stage(id)
    const known = this.#builders.get(id)
    if (known) return known
    if (stage.steps.length > 0) return await this.#builderOf(stage)
    const builder = await this.#start(stage, await this.#fromBase(stage))
    this.#builders.set(id, builder)
    return builder
  }

  async #keep(builder: Builder, { key, line }: ReadyStep): Promise<void> {
    const spared = new Set([...this.#kept.values()].map(({ id }) => id))
    const kept = await builder.keep(key, spared, this.#options.signal)
    if (kept) this.#kept.set(key, kept)
    else this.#options.output.line(`line ${line}: not kept in the cache: your disk quota has no room for it`)
  }
}

/** Errors of a step name its line. */
function atLine({ line, text }: ReadyStep, error: unknown): unknown {
  if (!(error instanceof AppError) || error instanceof DockerfileError) return error
  return error.but({ message: `line ${line}: ${text}: ${error.message}` })
}
