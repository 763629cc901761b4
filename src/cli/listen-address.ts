/** `--listen` of the commands that set the daemon's address. */

import { ListenAddress } from "@bhatti/contract/config"

/** Returns the problem with the address, if any. */
export function refuseListen({ options }: { options: { listen: string | undefined } }): string | undefined {
  const { listen } = options
  if (listen === undefined || ListenAddress.safeParse(listen).success) return undefined
  return `--listen takes HOST:PORT, not "${listen}"`
}
