/**
 * The promises of three large parts of the core to all others, and what they share. Their classes need other parts of
 * `Core`, which therefore names these and not the classes.
 */

import type { AppError } from "@bhatti/contract/errors"
import type { ThermalDecision, ThermalFacts } from "../rules/thermal.ts"
import type { Lifetime } from "../store/lifetime.ts"
import type { SandboxSpec } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Guest, Machine, Template, TemplateSpec, Zygote } from "./host.ts"

/** Why a sandbox is paused in spite of its requests. */
export type HoldReason = "host_disk" | "disk_quota"

/** An image of the host that is being made, for all tasks that wait for it. */
export type HostImageBuild = {
  /** The step that it is at. */
  words: string
  watchers: Set<(words: string) => void>
  stop: AbortController
  done: Promise<void>
}

export interface SpacePart {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>
  /** Returns the time until the next look. */
  tick(): Promise<number>
  /** Returns why the sandbox is held, or undefined if it is not. */
  heldOf(record: SandboxRecord): HoldReason | undefined
  /** For a request to a held sandbox: resumes it if there is room, else throws the reason. */
  check(record: SandboxRecord): Promise<void>
  /** The same for the holder of the turn. Returns the current record: the machine may have ended while resuming. */
  checkInTurn(seen: SandboxRecord): Promise<SandboxRecord>
  /** The owner releases it despite the used-up quota, to free space inside. */
  insist(record: SandboxRecord): Promise<void>
  /** Holds a sandbox whose machine stands still for lack of room, whatever stopped it, and throws the reason. */
  keepHalted(record: SandboxRecord, machine: Machine): Promise<void>
  /** Returns the error for a machine that QEMU has stopped for lack of space, and holds it; undefined if it has not. */
  haltedFor(record: SandboxRecord, machine: Machine): Promise<AppError | undefined>
  /** Returns the guest's answer; throws the reason as soon as a lack of space prevents one. Needs its turn. */
  unlessHalted<T>(record: SandboxRecord, machine: Machine, answer: Promise<T>): Promise<T>
  /** Returns whether the host's disk has less room than is kept free. */
  isShort(): Promise<boolean>
}

export type PooledSandbox = { id: SandboxRecord["id"]; template: Template; machine: Machine; guest: Guest }

export interface PoolPart {
  /** Number of sandboxes that are ready. */
  readonly readyCount: number
  /** Templates of the sandboxes to be made next. */
  readonly templateIds: string[]
  /** Takes a sandbox of that template, if there is one; the caller owns it from then on. */
  take(template: Template): PooledSandbox | undefined
  giveBack(pooled: PooledSandbox): void
  /** Marks a create as running until the result is disposed. */
  beginCreate(): Disposable
  /** Records demand for the template. */
  wants(spec: TemplateSpec, template: Template): void
  /** Keeps some ready of a template that was made for creates to come, unless creates want others. */
  expects(spec: TemplateSpec, template: Template): void
  /** Ends those of templates that are about to be removed. */
  forget(templateIds: ReadonlySet<string>): Promise<void>
  /** Frees the memory of all ready sandboxes; the pool refills when there is enough memory. */
  shed(): void
  /** Removes all ready sandboxes before the daemon stops. */
  empty(): Promise<void>
}

/** How machines of templates start. */
export type ForkStatus = { by: "fork" | "clone"; reason: string }

export interface ZygotePart {
  readonly status: ForkStatus
  readonly readyCount: number
  /** Templates of the zygotes. */
  readonly templateIds: string[]
  /** Records that a machine of the template was needed. */
  wants(spec: TemplateSpec, template: Template): void
  /** Returns true if machines of the template are forked, or will be soon, so that none is made in advance. */
  isExpected(templateId: string): boolean
  /** Returns the zygote that a machine of the template is forked from. */
  of(templateId: string): Zygote | undefined
  /** Counts a fork, or its failure. */
  onFork(zygote: Zygote, result: "done" | { error: unknown }): void
  /** Returns the zygote that a sandbox of the template is woken from, if wakes are forked. */
  ofWake(templateId: string): Zygote | undefined
  /** The same as `onFork` for a wake. */
  onWake(zygote: Zygote, result: "done" | { error: unknown }): void
  /** Frees their memory; they are made again when there is enough. */
  shed(): void
  /** Ends all before the daemon stops. */
  empty(): Promise<void>
}

export interface ThermalPart {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>
  tick(nowMs: number): Promise<void>
  /** Treats it like a sandbox that has just started. */
  forget(id: SandboxRecord["id"]): void
  /** Explains a sandbox's state, and when it changes by itself. */
  explain(record: SandboxRecord, nowMs: number): ThermalDecision | undefined
  facts(record: SandboxRecord, nowMs: number): ThermalFacts | undefined
}

export interface LifetimePart {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>
  /** Begins to warn and to end all that is due. */
  tick(): Promise<void>
  /** Resolves when all that was begun is done. */
  idle(): Promise<void>
  /** The time to live of a user's new sandboxes that ask for none. */
  defaultsOf(user: string): Pick<SandboxSpec, "ttlSec" | "onTtl">
  /** A lifetime that begins now. */
  begin(spec: Pick<SandboxSpec, "ttlSec">): Lifetime | null
  /** When a stopped sandbox is destroyed, by the host's clock; undefined: never. */
  removalOf(record: SandboxRecord): Promise<number | undefined>
}

/** A template in the making. */
export type TemplateBuild = {
  /** The account whose start command runs in it; null if it serves everybody. */
  owner: string | null
  /** Its share of its owner's disk quota. */
  takesMib: number
  template: Promise<Template>
  waiting: number
  stop: AbortController
}

/** A task that this daemon runs. */
export type GoingTask = { stop: AbortController; ended: Promise<void> }
