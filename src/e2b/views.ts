/** Sandboxes on e2b's wire. */

import type { CoreSettings } from "../core/core.ts"
import type { Sandbox } from "../core/sandbox.ts"
import { wireId } from "./ids.ts"

/** The version of e2b's agent whose features the SDKs may use. */
const envdVersion = "0.6.13"
/** For a sandbox without an end, since the SDKs need one. */
const farAwayMs = 3_155_760_000_000

export function stateOf({ state }: Pick<Sandbox, "state">): "running" | "paused" {
  return state.kind === "cold" || state.kind === "stopping" ? "paused" : "running"
}

export function templateOf({ imageShownAs, imageName }: Sandbox): string {
  return imageShownAs ?? imageName
}

/** The token of a sandbox ends with the client's key, and may do no more. */
type Shown = {
  core: { settings: Pick<CoreSettings, "publicAddress"> }
  tokenFor: (id: Sandbox["id"]) => string
}

export function viewCreated(sandbox: Sandbox, { core, tokenFor }: Shown) {
  const { scheme, domain, port } = core.settings.publicAddress
  const isUsual = port === (scheme === "https" ? 443 : 80)
  return {
    templateID: templateOf(sandbox),
    sandboxID: wireId(sandbox.id),
    alias: sandbox.name,
    clientID: "bhatti",
    envdVersion,
    envdAccessToken: tokenFor(sandbox.id),
    domain: isUsual ? domain : `${domain}:${port}`,
  }
}

export function viewListed(sandbox: Sandbox) {
  const { createdAt, endsAt, lifetime, onTtl } = sandbox
  const over = lifetime?.kind === "ended" ? new Date().toISOString() : undefined
  return {
    templateID: templateOf(sandbox),
    sandboxID: wireId(sandbox.id),
    alias: sandbox.name,
    clientID: "bhatti",
    startedAt: createdAt,
    endAt: endsAt ?? over ?? new Date(Date.parse(createdAt) + farAwayMs).toISOString(),
    cpuCount: sandbox.cpus,
    memoryMB: sandbox.memoryMib,
    diskSizeMB: sandbox.diskMib,
    state: stateOf(sandbox),
    envdVersion,
    metadata: sandbox.labels,
    lifecycle: { onTimeout: onTtl === "destroy" ? "kill" : "pause", autoResume: true },
  }
}

export function viewDetail(sandbox: Sandbox, shown: Shown) {
  const { domain, envdAccessToken } = viewCreated(sandbox, shown)
  return {
    ...viewListed(sandbox),
    ...{ domain, envdAccessToken },
    allowInternetAccess: sandbox.netPolicy.default === "public",
  }
}
