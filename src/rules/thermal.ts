/**
 * When an idle sandbox is paused, and when a paused one is saved to disk. Idle means: no open stream (a command, an
 * attached session, a transfer, a published connection), no recent request, no work inside the guest, and no program
 * whose timer is due soon: a paused guest's clock stands still, so every timer would be late by the pause.
 */

export type ThermalSettings = {
  /** Idle time after which a hot sandbox is paused; 0: never. */
  warmAfterMs: number
  /** Time a paused sandbox stays in memory; 0: for ever. */
  coldAfterMs: number
  /** A guest's timer counts if it is due within this time; 0 disables this. */
  timerWindowMs: number
}

export type ThermalFacts = {
  state: "hot" | "warm"
  keepHot: boolean
  allowCold: boolean
  /** The sandbox's own setting; null: the host's. */
  warmAfterMs: number | null
  coldAfterMs: number | null
  openStreams: number
  /** Time since the last request. */
  unaskedForMs: number
  /** That was no request: the daemon has connected to it again. */
  isReconnected: boolean
  /** Time since its guest last used more processor, disk or network than an idle guest does. */
  guestIdleForMs: number
  /** The resource it used. */
  guestWork: string
  /** Time until the guest's next timer, by its last answer; null if unknown or none. */
  timerDueInMs: number | null
  /** Time since it was paused. */
  warmForMs: number
  /** The host has little memory left. */
  isMemoryShort: boolean
}

export type ThermalDecision = {
  action: "stay" | "pause" | "save"
  /** The reason for the action, in words for a person. */
  reason: string
  /** Each reason why it is not paused now, in words for a person. */
  keepsAwake: string[]
  /** Time until it changes if nothing happens; null: not by itself. */
  changesInMs: number | null
}

/** An idle guest under software emulation uses about one hundredth of a core. */
const busyCpuShare = 0.05
/** QEMU of an idle guest reads and writes 200 bytes a second, and occasionally some pages of the guest's journal. */
const busyDiskBytesPerSec = 16 * 1024
/** Broadcasts of neighbours reach it too. */
const busyNetworkBytesPerSec = 1024

/** Returns the resource that kept the guest busy, if any, from what its machine used in that time. */
export function guestWork(used: {
  elapsedMs: number
  cpuMs: number
  diskBytes: number
  networkBytes: number
}): string | undefined {
  const seconds = used.elapsedMs / 1000
  const words: string[] = []
  if (used.cpuMs > used.elapsedMs * busyCpuShare) words.push("it computes")
  if (used.diskBytes > seconds * busyDiskBytesPerSec) words.push("it reads or writes its disk")
  if (used.networkBytes > seconds * busyNetworkBytesPerSec) words.push("it uses the network")
  return words.length > 0 ? words.join(", ") : undefined
}

const aftermathMs = 2000

export function decideThermal(facts: ThermalFacts, settings: ThermalSettings): ThermalDecision {
  const warmAfterMs = facts.warmAfterMs ?? settings.warmAfterMs
  const coldAfterMs = facts.coldAfterMs ?? settings.coldAfterMs
  const hasTimer = isHeldByTimer(facts, settings)
  const keepsAwake = facts.state === "hot" ? whatKeepsAwake(facts, { warmAfterMs, hasTimer }) : []
  const stay = (reason: string, changesInMs: number | null = null): ThermalDecision => ({
    action: "stay",
    reason,
    keepsAwake,
    changesInMs,
  })
  if (facts.state === "warm") {
    if (!facts.allowCold) return stay("it is paused, and set not to be written to disk")
    if (coldAfterMs === 0) return stay(`it is paused, and ${whose(facts.coldAfterMs)} to stay in memory`)
    if (facts.isMemoryShort)
      return { action: "save", reason: "the host is short of memory", keepsAwake, changesInMs: null }
    const left = coldAfterMs - facts.warmForMs
    return left > 0
      ? stay("it was idle and is paused in memory", left)
      : { action: "save", reason: "it has been paused for long", keepsAwake, changesInMs: null }
  }
  if (facts.keepHot) return stay("it is set to be kept hot")
  if (warmAfterMs === 0) return stay(`${whose(facts.warmAfterMs)} not to be paused`)
  if (facts.openStreams > 0) {
    return stay(
      facts.openStreams === 1
        ? "a client is connected to it"
        : `${facts.openStreams} clients are connected to it`,
    )
  }
  const left = warmAfterMs - Math.min(facts.guestIdleForMs, facts.unaskedForMs)
  if (left <= 0 && hasTimer) return stay("a program inside it waits for a timer that is due soon")
  if (left <= 0) return { action: "pause", reason: "it is idle", keepsAwake, changesInMs: null }
  return stay(lastUse(facts), hasTimer ? null : left)
}

function lastUse(facts: ThermalFacts): string {
  if (isGuestLast(facts)) return "something works inside it"
  return facts.isReconnected ? "the daemon connected to it again recently" : "it had a request recently"
}

/** When memory is short, sandboxes in use need it, and a timer waits for the next request. */
export function isHeldByTimer(
  { timerDueInMs, isMemoryShort }: Pick<ThermalFacts, "timerDueInMs" | "isMemoryShort">,
  { timerWindowMs }: Pick<ThermalSettings, "timerWindowMs">,
): boolean {
  return timerDueInMs !== null && timerDueInMs <= timerWindowMs && timerWindowMs > 0 && !isMemoryShort
}

/** Returns all reasons, since a user who wants it paused has to end each. */
function whatKeepsAwake(
  facts: ThermalFacts,
  { warmAfterMs, hasTimer }: { warmAfterMs: number; hasTimer: boolean },
): string[] {
  const words: string[] = []
  if (facts.keepHot) words.push("it is set to be kept hot")
  if (warmAfterMs === 0) words.push(`${whose(facts.warmAfterMs)} not to be paused`)
  if (facts.openStreams > 0) {
    words.push(`open commands, sessions, transfers or connections: ${facts.openStreams}`)
  }
  if (warmAfterMs > 0 && isGuestLast(facts) && facts.guestIdleForMs < warmAfterMs) {
    words.push(`work inside it: ${facts.guestWork}`)
  }
  if (hasTimer) {
    words.push(`a timer inside it: due in ${Math.ceil((facts.timerDueInMs ?? 0) / 1000)} s`)
  }
  return words
}

/** A request causes work in the guest for a moment, too. */
function isGuestLast(facts: ThermalFacts): boolean {
  return facts.guestIdleForMs + aftermathMs < facts.unaskedForMs
}

function whose(own: number | null): string {
  return own === null ? "this host has it" : "it is set"
}
