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

    async version() {
      return {
        version: about.version,
        accelerator: about.accelerator,
        accelerator_reason: about.acceleratorReason,
        warnings: about.warnings,
        features: ["exec_key", "input_writer"],
      }
    },
  }) satisfies Partial<Handlers>
