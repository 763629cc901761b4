/** Handlers of processes that are kept. */

import { AppError } from "@bhatti/contract/errors"
import { offsetHeader, totalHeader } from "@bhatti/contract/limits"
import {
  getProcess,
  inputOfProcess,
  listProcesses,
  readProcessOutput,
  removeProcess,
  resizeProcess,
  signalProcess,
  startDetached,
  waitForProcess,
} from "../../core/kept-processes.ts"
import { unlessRevoked } from "../../gate/revocation.ts"
import { bytesReply } from "../bytes.ts"
import { commandOf } from "../command.ts"
import type { Handlers } from "../context.ts"
import { ProcessSocket } from "../process-socket.ts"
import { viewProcess } from "../views/process.ts"

type Params = { id: string; process: string }
const named = ({ id, process }: Params) => ({ sandbox: id, process })

export const processes = {
  async listProcesses({ core, account, params }) {
    const { sandboxId, records } = await listProcesses(core, account, params.id)
    return records.map((record) => viewProcess(sandboxId, record))
  },

  async startProcess({ core, account, params }, { body }) {
    const { sandboxId, record, isNew } = await startDetached(core, account, params.id, {
      command: {
        ...commandOf(body),
        ...(body.key !== undefined && { key: body.key, elapsedMs: body.elapsed_ms }),
        stdin: body.stdin || body.tty !== undefined,
        ...(body.name !== undefined && { name: body.name }),
        retainMs: Math.ceil(body.retain_sec * 1000),
        ringBytes: body.output_bytes,
      },
      timeoutSec: body.timeout_sec,
    })
    const view = viewProcess(sandboxId, record)
    return isNew ? view : Response.json(view, { status: 200 })
  },

  async getProcess({ core, account, params }) {
    const { sandboxId, record } = await getProcess(core, account, named(params))
    return viewProcess(sandboxId, record)
  },

  async deleteProcess({ core, account, params }) {
    const { sandboxId, record } = await removeProcess(core, account, named(params))
    return viewProcess(sandboxId, record)
  },

  async signalProcess({ core, account, params }, { body }) {
    const { signal, scope } = body
    await signalProcess(core, account, named(params), { signal, ...(scope && { scope }) })
    return { status: "ok" }
  },

  async writeProcess({ core, account, params, request, revoked, body }, { query }) {
    const input = await inputOfProcess(core, account, named(params), {
      ...(query.at !== undefined && { at: query.at }),
      close: query.end === "true",
    })
    const write = async () => {
      for await (const bytes of body) await Promise.race([input.write(bytes), input.result])
      input.endInput()
      return await input.result
    }
    try {
      // A program that reads nothing never takes it.
      const left = AbortSignal.any([request.signal, revoked])
      return await unlessRevoked(left, write(), () => undefined)
    } finally {
      input.close()
    }
  },

  async resizeProcess({ core, account, params }, { body }) {
    await resizeProcess(core, account, named(params), body)
    return { status: "ok" }
  },

  async waitProcess({ core, account, params, request, revoked }, { query }) {
    const signal = AbortSignal.any([request.signal, revoked])
    const { sandboxId, record } = await waitForProcess(core, account, named(params), {
      timeoutSec: query.timeout_sec,
      signal,
    })
    revoked.throwIfAborted()
    return viewProcess(sandboxId, record)
  },

  async readProcess({ core, account, params, revoked }, { query }) {
    const { source, first, total } = await readProcessOutput(core, account, named(params), {
      stream: query.stream,
      offset: query.offset,
      sinceSec: query.since_sec,
      follow: query.follow === "true",
      limit: query.limit,
    })
    const headers = { [offsetHeader]: `${first}`, [totalHeader]: `${total}` }
    return bytesReply(source, { headers, revoked, log: core.log })
  },

  async processSocket({ core, account, params, requestId, upgrade }, { query }) {
    const attach = { process: params.process, query }
    const session = new ProcessSocket({ core, account, nameOrId: params.id, requestId, attach })
    if (upgrade(session)) return new Response(null)
    throw new AppError("invalid", "this endpoint accepts only WebSockets")
  },
} satisfies Partial<Handlers>
