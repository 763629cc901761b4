/** The handler of every endpoint of the contract: one call into `core` each. A missing handler does not compile. */

import type { Api } from "@bhatti/contract/api"
import type { Endpoint } from "@bhatti/contract/endpoint"
import { AppError } from "@bhatti/contract/errors"
import { limits, truncatedHeader } from "@bhatti/contract/limits"
import { Port } from "@bhatti/contract/publish"
import { z } from "zod"
import { createSandbox } from "../core/create.ts"
import { createSandboxes } from "../core/create-several.ts"
import { destroySandbox } from "../core/destroy.ts"
import { editSandbox } from "../core/edit.ts"
import { execInSandbox } from "../core/exec.ts"
import {
  listFiles,
  makeDirectory,
  moveFile,
  readArchive,
  readFile,
  removeFile,
  statFile,
  writeArchive,
  writeFile,
} from "../core/files.ts"
import { findSandbox, listSandboxes, noSandbox } from "../core/find.ts"
import { listImages } from "../core/images.ts"
import { listPorts } from "../core/ports.ts"
import { listPublished, publishPort, unpublishPort } from "../core/publish.ts"
import { repairByName } from "../core/repair-sandbox.ts"
import { restartByName } from "../core/restart.ts"
import { viewSandboxes } from "../core/sandbox-view.ts"
import { killSession, listSessions, readSessionOutput } from "../core/sessions.ts"
import {
  createSnapshot,
  deleteSnapshot,
  getSnapshot,
  listSnapshots,
  resumeSnapshot,
} from "../core/snapshots.ts"
import { startByName, stopByName } from "../core/stop-start.ts"
import { whySandbox } from "../core/why.ts"
import { bytesReply } from "./bytes.ts"
import type { RequestContext } from "./context.ts"
import { followEvents, listEvents } from "./events-reply.ts"
import { bufferedReply, streamedReply } from "./exec-reply.ts"
import { ExecSocket } from "./exec-socket.ts"
import { declaredLength, parseInput } from "./input.ts"
import { sectionOf } from "./lines.ts"
import { ShellSocket } from "./shell-socket.ts"
import type { StreamedAnswer } from "./streamed-answer.ts"

type Body<E extends Endpoint> = E extends { body: infer B extends z.ZodType } ? z.infer<B> : undefined
type Query<E extends Endpoint> = E extends { query: infer Q extends z.ZodType } ? z.infer<Q> : undefined
/** A handler returns the contract's reply, or a whole response if it streams. */
type Handler<E extends Endpoint> = (
  context: E extends { isPublic: true } ? Omit<RequestContext, "account" | "revoked"> : RequestContext,
  input: { body: Body<E>; query: Query<E> },
) => Promise<z.infer<E["reply"]> | Response | StreamedAnswer>
export type Handlers = { [K in keyof Api]: Handler<Api[K]> }

export type About = {
  version: string
  accelerator: "kvm" | "tcg"
  acceleratorReason: string
  warnings: string[]
}

export function handlers(about: About): Handlers {
  return {
    async health({ core }) {
      return { status: "ok", uptime: Math.round((core.clock.nowMs() - core.startedAt) / 1000) }
    },

    async version() {
      return {
        version: about.version,
        accelerator: about.accelerator,
        accelerator_reason: about.acceleratorReason,
        warnings: about.warnings,
      }
    },

    async listSandboxes({ core, account }, { query }) {
      return viewSandboxes(core, await listSandboxes(core, account, [query.label ?? []].flat()))
    },

    async createSandbox({ core, account, request }, { body }) {
      const { sandbox, isNew } = await createSandbox(core, account, body, { signal: request.signal })
      return isNew ? sandbox : Response.json(sandbox, { headers: { "x-bhatti-existing": "true" } })
    },

    async createSandboxes({ core, account, request }, { body }) {
      const { count, ...input } = body
      return createSandboxes(core, account, input, { count, signal: request.signal })
    },

    async getSandbox({ core, account, params }) {
      const [sandbox] = await viewSandboxes(core, [await findSandbox(core, account, idOf(params))])
      return sandbox ?? Promise.reject(noSandbox(idOf(params)))
    },

    async destroySandbox({ core, account, params }) {
      await destroySandbox(core, account, idOf(params))
      return { status: "destroyed" }
    },

    async updateSandbox({ core, account, params }, { body }) {
      return editSandbox(core, account, idOf(params), body)
    },

    async whySandbox({ core, account, params }) {
      return whySandbox(core, account, idOf(params))
    },

    async stopSandbox({ core, account, params }) {
      return stopByName(core, account, idOf(params))
    },

    async startSandbox({ core, account, params }, { body }) {
      return startByName(core, account, idOf(params), body)
    },

    async repairSandbox({ core, account, params }) {
      return repairByName(core, account, idOf(params))
    },

    async restartSandbox({ core, account, params }) {
      return restartByName(core, account, idOf(params))
    },

    async checkpointSandbox({ core, account, params }, { body }) {
      return createSnapshot(core, account, idOf(params), body.name)
    },

    async listSnapshots({ core, account }) {
      return listSnapshots(core, account)
    },

    async getSnapshot({ core, account, params }) {
      return getSnapshot(core, account, params.name ?? "")
    },

    async deleteSnapshot({ core, account, params }) {
      await deleteSnapshot(core, account, params.name ?? "")
      return { status: "deleted" }
    },

    async resumeSnapshot({ core, account, params, request }, { body }) {
      return resumeSnapshot(core, account, params.name ?? "", body, { signal: request.signal })
    },

    async listEvents({ core, account, revoked }, { query }) {
      if (query.follow === "false") return listEvents(core, account, query)
      return followEvents(core, account, query, revoked)
    },

    async exec({ core, account, revoked, params, request }, { body }) {
      const running = await execInSandbox(core, account, idOf(params), {
        command: {
          argv: body.cmd,
          env: body.env,
          stdin: body.stdin !== undefined,
          ...(body.cwd !== undefined && { cwd: body.cwd }),
          ...(body.user !== undefined && { user: body.user }),
        },
        timeoutSec: body.timeout_sec ?? limits.execTimeoutSecDefault,
        signal: request.signal,
      })
      if (body.stdin !== undefined) {
        // A command may end without reading all its input.
        void running.process.write(Buffer.from(body.stdin)).then(
          () => running.process.endInput(),
          () => undefined,
        )
      }
      const wantsEvents =
        request.headers.get("accept")?.toLowerCase().includes("application/x-ndjson") ?? false
      return wantsEvents ? streamedReply(running, revoked) : bufferedReply(running, revoked)
    },

    async execSocket({ core, account, params, requestId, upgrade }) {
      const session = new ExecSocket({ core, account, nameOrId: idOf(params), requestId })
      if (upgrade(session)) return new Response(null)
      throw new AppError("invalid", "this endpoint accepts only WebSockets")
    },

    async shellSocket({ core, account, params, requestId, upgrade }, { query }) {
      const session = new ShellSocket({ core, account, nameOrId: idOf(params), requestId, query })
      if (upgrade(session)) return new Response(null)
      throw new AppError("invalid", "this endpoint accepts only WebSockets")
    },

    async listSessions({ core, account, params }) {
      return listSessions(core, account, idOf(params))
    },

    async killSession({ core, account, params }, { body }) {
      await killSession(core, account, idOf(params), { session: params.session ?? "", signal: body.signal })
      return { status: "killed" }
    },

    async readSession({ core, account, revoked, params }) {
      const output = await readSessionOutput(core, account, idOf(params), params.session ?? "")
      return bytesReply(output, { headers: {}, revoked, log: core.log })
    },

    async readFile({ core, account, revoked, params, request }, { query }) {
      if (request.method === "HEAD") {
        const { size, mode, is_dir } = await statFile(core, account, idOf(params), query.path)
        const headers = { "x-file-size": `${size}`, "x-file-mode": mode, "x-file-isdir": `${is_dir}` }
        return new Response(null, { headers })
      }
      if (query.stat === "true") return statFile(core, account, idOf(params), query.path)
      if (query.ls === "true") {
        const { entries, isTruncated } = await listFiles(core, account, idOf(params), query.path)
        return Response.json(entries, { headers: isTruncated ? { [truncatedHeader]: "true" } : {} })
      }
      const download = await readFile(core, account, idOf(params), query.path)
      const file = await download.file
      const headers = { "x-file-size": `${file.size}`, "x-file-mode": file.mode }
      const { offset, limit, max_bytes: maxBytes } = query
      const isWhole = offset === undefined && limit === undefined && maxBytes === undefined
      const source = isWhole ? download : sectionOf(download, { offset, limit, maxBytes })
      return bytesReply(source, { headers, revoked, log: core.log })
    },

    async writeFile({ core, account, revoked, params, request, body }, { query }) {
      for (const name of ["content-range", "content-encoding"]) {
        if ((request.headers.get(name) ?? "identity") === "identity") continue
        throw new AppError("invalid", `a file is written as a whole and as it is, without ${name}`)
      }
      await writeFile(core, account, idOf(params), {
        path: query.path,
        mode: query.mode,
        owner: query.owner,
        size: declaredLength(request),
        body,
        signal: revoked,
      })
      return { status: "ok" }
    },

    async removeFile({ core, account, params }, { query }) {
      const recursive = query.recursive === "true"
      await removeFile(core, account, idOf(params), { path: query.path, recursive })
      return { status: "ok" }
    },

    async makeDirectory({ core, account, params }, { body }) {
      await makeDirectory(core, account, idOf(params), body)
      return { status: "ok" }
    },

    async moveFile({ core, account, params }, { body }) {
      await moveFile(core, account, idOf(params), body)
      return { status: "ok" }
    },

    async readArchive({ core, account, revoked, params }, { query }) {
      const archive = await readArchive(core, account, idOf(params), query.path)
      return bytesReply(archive, { headers: { "content-type": "application/x-tar" }, revoked, log: core.log })
    },

    async writeArchive({ core, account, revoked, params, body }, { query }) {
      const { entries, bytes } = await writeArchive(core, account, idOf(params), {
        path: query.path,
        owner: query.owner,
        body,
        signal: revoked,
      })
      return { status: "ok", entries, bytes }
    },

    async listImages({ core }) {
      return listImages(core)
    },

    async listSecrets({ core, account }) {
      return core.store.secrets.list(account.id)
    },

    async setSecret({ core, account }, { body }) {
      const secret = await core.store.secrets.set(account.id, body.name, body.value)
      core.events.record({ type: "secret.set", userId: account.id, meta: { by: "user", name: body.name } })
      return secret
    },

    async deleteSecret({ core, account, params }) {
      const name = params.name ?? ""
      await core.store.secrets.remove(account.id, name)
      core.events.record({ type: "secret.deleted", userId: account.id, meta: { by: "user", name } })
      return { status: "deleted" }
    },

    async listPorts({ core, account, params }) {
      return listPorts(core, account, idOf(params))
    },

    async publishPort({ core, account, params }, { body }) {
      const { published, isNew } = await publishPort(core, account, idOf(params), body)
      return isNew ? published : Response.json(published)
    },

    async listPublished({ core, account, params }) {
      return listPublished(core, account, idOf(params))
    },

    async unpublishPort({ core, account, params }, { query }) {
      const port = parseInput(PortParameter, params.port)
      await unpublishPort(core, account, idOf(params), { port, alias: query.alias })
      return new Response(null, { status: 204 })
    },
  }
}

const PortParameter = z.coerce.number().pipe(Port)

function idOf(params: Record<string, string>): string {
  return params["id"] ?? ""
}
