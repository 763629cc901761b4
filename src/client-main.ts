/**
 * The entry point of the stand-alone command line for machines without a daemon: src/main.ts without the host's part.
 */

import { AppError } from "@bhatti/contract/errors"
import { main } from "./cli/cli.ts"

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
  preflight: async () => [],
  warnings: async () => [],
})
