/** The migrations of the database, by name and in order. */

import type { Migration } from "kysely/migration"
import * as start from "./migrations/0001-start.ts"
import * as network from "./migrations/0002-network.ts"
import * as snapshotsAndEvents from "./migrations/0003-snapshots-and-events.ts"
import * as installation from "./migrations/0004-installation.ts"
import * as severalAliases from "./migrations/0005-several-aliases.ts"
import * as diskQuotas from "./migrations/0006-disk-quotas.ts"
import * as bootScript from "./migrations/0007-boot-script.ts"
import * as batches from "./migrations/0008-batches.ts"
import * as socketTickets from "./migrations/0009-socket-tickets.ts"
import * as oneSpecification from "./migrations/0010-one-specification.ts"
import * as templateUse from "./migrations/0011-template-use.ts"
import * as imagesAndTasks from "./migrations/0012-images-and-tasks.ts"
import * as lifetimes from "./migrations/0013-lifetimes.ts"
import * as buildSteps from "./migrations/0014-build-steps.ts"
import * as apiKeys from "./migrations/0015-api-keys.ts"

export const migrations: Record<string, Migration> = {
  "0001-start": start,
  "0002-network": network,
  "0003-snapshots-and-events": snapshotsAndEvents,
  "0004-installation": installation,
  "0005-several-aliases": severalAliases,
  "0006-disk-quotas": diskQuotas,
  "0007-boot-script": bootScript,
  "0008-batches": batches,
  "0009-socket-tickets": socketTickets,
  "0010-one-specification": oneSpecification,
  "0011-template-use": templateUse,
  "0012-images-and-tasks": imagesAndTasks,
  "0013-lifetimes": lifetimes,
  "0014-build-steps": buildSteps,
  "0015-api-keys": apiKeys,
}
