/** The start of a program that is the command line alone, for machines that have no daemon: src/main.ts without what only a host does. */

import { main } from "./cli/cli.ts"
import { AppError } from "./contract/errors.ts"

function onHostOnly(): never {
  throw new AppError("unavailable", "this bhatti is the command line only, without the daemon", {
    hint: "run it on the daemon's host, with the bhatti that is installed there",
    retryable: false,
  })
}

await main(process.argv.slice(2), {
  serve: async () => onHostOnly(),
  init: async () => onHostOnly(),
  openStore: async () => onHostOnly(),
  loadConfig: async () => onHostOnly(),
  backUp: async () => onHostOnly(),
  restore: async () => onHostOnly(),
  recover: async () => onHostOnly(),
  examine: async () => [],
  warnings: async () => [],
})
