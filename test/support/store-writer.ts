/**
 * A process that writes to a database beside others: once told, it adds to one user as often as it can, and prints
 * what was accepted and the codes of all refusals.
 */

import { AppError } from "@bhatti/contract/errors"
import { openStore } from "../../src/store/store.ts"
import { aSandbox } from "./store-suite.ts"

const [, , dataDir = "", key = "", id = ""] = process.argv
const store = await openStore({ dataDir })
const account = await store.users.findByKey(key)
const source = account && (await store.sandboxes.find(account, "source"))
if (!source) throw new Error("the database is not prepared")

const additions: Record<string, (name: string) => Promise<unknown>> = {
  sandboxes: (name) => store.sandboxes.add(account, aSandbox(name), { isSlotInUse: () => false }),
  snapshots: (name) => store.snapshots.add(account, name, source, { neededMib: 1 }),
  secrets: (name) => store.secrets.set(account.id, name, "value"),
  aliases: (alias) => store.publishedPorts.add({ sandboxId: source.id, port: 80, alias }),
}

process.stdout.write("ready\n")
await new Response(Bun.stdin.stream()).text()
const accepted: Record<string, number> = {}
const refusals = new Set<string>()
for (let number = 0; number < 35; number++) {
  for (const [what, add] of Object.entries(additions)) {
    try {
      await add(`w${id}-${number}`)
      accepted[what] = (accepted[what] ?? 0) + 1
    } catch (error) {
      refusals.add(error instanceof AppError ? error.code : String(error))
    }
  }
}
process.stdout.write(JSON.stringify({ accepted, refusals: [...refusals] }))
await store.close()
