/** A front in a process of its own, so that its memory can be measured: gets an application's port, prints its own. */

import { openStage } from "./stage.ts"

const stage = await openStage()
await stage.publish(Number(process.argv[2]))
console.log(stage.port)
process.once("SIGTERM", async () => {
  await stage[Symbol.asyncDispose]()
  process.exit()
})
