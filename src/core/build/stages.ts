/**
 * The stages that a build needs, each with its images found, its steps planned and their keys: all of it before
 * anything runs. A key is a digest of a step, of all before it, and of what it copies.
 */

import { createHash } from "node:crypto"
import { AppError } from "@bhatti/contract/errors"
import type { ImageConfig } from "@bhatti/contract/image-config"
import type { Dockerfile } from "../../rules/dockerfile/instruction.ts"
import {
  type Arguments,
  type BaseOf,
  basesOf,
  type CopyStep,
  planStage,
  type RunStep,
  type Step,
  type WorkdirStep,
} from "../../rules/dockerfile/plan.ts"
import { DockerfileError } from "../../rules/dockerfile/refusal.ts"
import { select } from "../../rules/dockerfile/select.ts"
import type { BuildContext, ContextEntry, Image } from "../host.ts"
import { ownConfig } from "../save-image.ts"
import { type CopySource, isArchive, isZstd } from "./copy.ts"
import { checkSecrets, type Secrets } from "./run.ts"

export type ReadyStep =
  | (RunStep & { key: string })
  | (WorkdirStep & { key: string })
  | (CopyStep & { key: string; source: CopySource | null; fromStage: string | null })

/** It begins with another stage, named by its id, or with an image. */
export type ReadyStage = {
  id: string
  name: string
  base: { stage: string } | { image: Image }
  steps: ReadyStep[]
  key: string
  config: ImageConfig
}

export type StagesAsked = {
  file: Dockerfile
  target: number
  args: Arguments
  secrets: Secrets
  context: BuildContext
  /** Sets the size of builders apart, since a disk belongs to a template of one size. */
  size: { cpus: number; memoryMib: number }
  findImage: (name: string | "scratch") => Promise<Image>
}

/** Stages by id, in the order in which they can be made; the last one is the target. */
export async function readyStages(
  asked: StagesAsked,
): Promise<{ stages: Map<string, ReadyStage>; ignored: string[] }> {
  const reader = new StageReader(asked)
  await reader.ready({ kind: "stage", index: asked.target }, asked.file.stages[asked.target]?.line ?? 1)
  return { stages: reader.stages, ignored: reader.ignored }
}

class StageReader {
  readonly stages = new Map<string, ReadyStage>()
  readonly ignored: string[] = []
  readonly #asked: StagesAsked
  readonly #bases: BaseOf[]

  constructor(asked: StagesAsked) {
    this.#asked = asked
    this.#bases = basesOf(asked.file, asked.args)
  }

  /** A stage leads only to earlier ones, so this ends. */
  async ready(from: BaseOf, line: number): Promise<ReadyStage> {
    const id = idOf(from)
    const known = this.stages.get(id)
    if (known) return known
    const stage = from.kind === "stage" ? await this.#ofFile(from.index) : await this.#ofImage(from, line)
    this.stages.set(id, stage)
    return stage
  }

  async #ofImage(from: Exclude<BaseOf, { kind: "stage" }>, line: number): Promise<ReadyStage> {
    const name = from.kind === "scratch" ? "scratch" : from.name
    const { cpus, memoryMib } = this.#asked.size
    const image = await this.#asked.findImage(name).catch((error: unknown) => {
      if (!(error instanceof AppError)) throw error
      throw error.but({ message: `Dockerfile, line ${line}: ${error.message}` })
    })
    return {
      ...{ id: idOf(from), name, base: { image }, steps: [] },
      key: digestOf(["image", image.hash, cpus, memoryMib]),
      config: image.config ?? ownConfig,
    }
  }

  async #ofFile(index: number): Promise<ReadyStage> {
    const { file, args, secrets } = this.#asked
    const about = file.stages[index]
    const from = this.#bases[index]
    if (!about || !from) throw new Error(`there is no stage ${index}`)
    const base = await this.ready(from, about.line)
    const plan = planStage(file, index, { args, base: base.config })
    this.ignored.push(...plan.ignored)
    const steps: ReadyStep[] = []
    let key = base.key
    for (const step of plan.steps) {
      if (step.kind === "run") checkSecrets(step, secrets)
      const ready = await this.#step(step, key)
      steps.push(ready)
      key = ready.key
    }
    return {
      ...{ id: idOf({ kind: "stage", index }), name: about.name ?? String(index), base: { stage: base.id } },
      ...{ steps, key, config: plan.config },
    }
  }

  async #step(step: Step, before: string): Promise<ReadyStep> {
    if (step.kind === "workdir") return { ...step, key: digestOf([before, "workdir", step.path]) }
    if (step.kind === "run") {
      const { argv, script, env, user, cwd, mounts } = step
      const key = digestOf([
        before,
        "run",
        { argv, script, env: Object.entries(env).sort(), user, cwd, mounts },
      ])
      return { ...step, key }
    }
    const { target, chown, chmod, inline, isAdd, sources } = step
    const about = { target, chown, chmod, inline, isAdd }
    if (step.from) {
      const from = await this.ready(step.from, step.line)
      const key = digestOf([before, "copy", about, from.key, sources])
      return { ...step, key, source: null, fromStage: from.id }
    }
    const source = await sourceOf(step, this.#asked.context)
    const copied = source.items.map(({ entry, to }) => [to, ...contentOf(entry)])
    const archives = source.archives.map(contentOf)
    const key = digestOf([before, "copy", about, source.isInto, copied, archives])
    return { ...step, key, source, fromStage: null }
  }
}

/** No times: a fresh checkout of the same files is the same. */
function contentOf({ kind, mode, size, link, digest }: ContextEntry) {
  return [kind, mode, size, link, digest]
}

async function sourceOf(step: CopyStep, { entries, ...rest }: BuildContext): Promise<CopySource> {
  const context = { ...rest, entries } as BuildContext
  const { sources, target, line } = step
  if (sources.length === 0 && step.inline.length === 0)
    throw new DockerfileError(line, "there is nothing to copy")
  const selection = select(entries, { sources, target, line })
  const archives: ContextEntry[] = []
  if (!step.isAdd) return { ...selection, archives }
  const items = []
  for (const item of selection.items) {
    const isNamed = sources.length > 0 && !item.to.includes("/")
    if (isNamed && (await isZstd(context, item.entry)))
      throw new DockerfileError(
        line,
        `ADD does not unpack "${item.entry.path}", which is compressed with zstd`,
        "compress it with gzip or xz, or copy it as it is with COPY",
      )
    if (isNamed && (await isArchive(context, item.entry))) archives.push(item.entry)
    else items.push(item)
  }
  return { ...selection, items, archives }
}

function idOf(from: BaseOf): string {
  if (from.kind === "stage") return `stage:${from.index}`
  return from.kind === "scratch" ? "scratch" : `image:${from.name}`
}

export function digestOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex")
}
