/** The program's entry point. Each command imports what only it needs, so that the command line starts fast. */

import { main } from "./cli/cli.ts"
import { keepHeapSmall } from "./lib/small-heap.ts"

await main(process.argv.slice(2), {
  async serve(options) {
    keepHeapSmall()
    await (await import("./daemon.ts")).serve(options)
  },
  init: async (options) => (await import("./init.ts")).init(options),
  warnings: async (options) => (await import("./host-warnings.ts")).hostWarnings(options),
  loadConfig: async (options) => (await import("./config.ts")).loadConfig(options, process.env),
  backUp: async (options) => (await import("./backup.ts")).backUp(options),
  restore: async (options) => (await import("./backup.ts")).restore(options),
  recover: async (options) => (await import("./recover.ts")).recover(options),
  preflight: async (options) => (await import("./preflight.ts")).preflight(options),
  async openStore(options) {
    const { OperatorUsers } = await import("./core/users.ts")
    const { OperatorImages } = await import("./core/operator-images.ts")
    const store = await (await import("./store/store.ts")).openStore(options)
    return {
      users: new OperatorUsers(store),
      images: new OperatorImages(store),
      events: store.events,
      close: () => store.close(),
    }
  },
})
