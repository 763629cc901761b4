/** Warnings about this host for operators' commands that run without a daemon. */

import { trust } from "@bhatti/contract/trust"
import { loadConfig } from "./config.ts"
import { isEmulated } from "./machine/accelerator.ts"

export async function hostWarnings({ dataDir }: { dataDir: string }): Promise<string[]> {
  const config = loadConfig({ dataDir }, process.env)
  return [
    ...((await isEmulated({ wanted: config.accel, dataDir })) ? [trust.emulation] : []),
    ...(config.confinement === "reduced" ? [trust.reduced] : []),
  ]
}
