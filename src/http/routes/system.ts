/** Handlers of the daemon's report about itself. */

import type { Handlers } from "../context.ts"

export type About = {
  version: string
  accelerator: "kvm" | "tcg"
  acceleratorReason: string
  warnings: string[]
}

export const system = (about: About) =>
  ({
    async health({ core }) {
      return { status: "ok", uptime: Math.round((core.clock.nowMs() - core.startedAt) / 1000) }
    },

    async version({ core }) {
      const { by: starts, reason: starts_reason } = core.zygotes.status
      return {
        version: about.version,
        accelerator: about.accelerator,
        accelerator_reason: about.acceleratorReason,
        starts,
        starts_reason,
        default_registry: core.settings.images.defaultRegistry ?? null,
        warnings: about.warnings,
        features: ["exec_key", "input_writer"],
      }
    },
  }) satisfies Partial<Handlers>
