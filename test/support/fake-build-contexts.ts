/** Directories of builds in memory, read as the real host reads them. */

import type { BuildContexts } from "../../src/core/host.ts"
import { readContext } from "../../src/image/build-context.ts"

export function fakeBuildContexts(): BuildContexts {
  return {
    async receive(archive, options) {
      let spooled = Buffer.alloc(0)
      const spool = {
        async write(bytes: Uint8Array) {
          spooled = Buffer.concat([spooled, bytes])
        },
        read: async ({ offset, bytes }: { offset: number; bytes: number }) =>
          spooled.subarray(offset, offset + bytes),
      }
      const context = await readContext(archive, spool, options)
      return { ...context, [Symbol.asyncDispose]: async () => {} }
    },
  }
}
