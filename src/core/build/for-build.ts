/** The parts of the core that a build uses: it pulls, starts sandboxes, copies their disks and removes them. */

import type { Core, ForRemoval, ForRequest, OnHost } from "../core.ts"
import type { ForPull } from "../pull.ts"

export type ForBuild = ForPull &
  ForRequest &
  ForRemoval &
  Pick<Core, "lifetimes" | "waits"> &
  OnHost<"buildContexts" | "machines" | "snapshots">
