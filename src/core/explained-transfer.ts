/** Transfers of files whose loss is explained: with the reason for which the sandbox's machine ended. */

import type { Core } from "./core.ts"
import { explainedOutput } from "./explained-process.ts"
import type { Guest, GuestDownload, GuestStream } from "./host.ts"

const during = "during the transfer"

/** Work with a guest, such as an upload. */
export async function explainedTransfer<Result>(
  core: Pick<Core, "endings">,
  guest: Guest,
  work: Promise<Result>,
): Promise<Result> {
  try {
    return await work
  } catch (error) {
    throw await core.endings.explain(guest, error, { during })
  }
}

export function explainedArchive<Stream extends GuestStream & { readonly result: Promise<unknown> }>(
  core: Pick<Core, "endings">,
  guest: Guest,
  stream: Stream,
): GuestStream & { readonly result: Stream["result"] } {
  const explain = async (error: unknown): Promise<never> => {
    throw await core.endings.explain(guest, error, { during })
  }
  const result = stream.result.catch(explain)
  result.catch(() => undefined)
  return {
    output: explainedOutput(stream.output, explain),
    result,
    write: (bytes) => stream.write(bytes),
    endInput: () => stream.endInput(),
    close: () => stream.close(),
  }
}

export function explainedDownload(
  core: Pick<Core, "endings">,
  guest: Guest,
  download: GuestDownload,
): GuestDownload {
  const file = explainedTransfer(core, guest, download.file)
  file.catch(() => undefined)
  return { ...explainedArchive(core, guest, download), file }
}
