/** The calls of e2b's control plane: their paths, the right that each needs of a key, and their answers. */

import type { Permission } from "@bhatti/contract/permission"
import type { z } from "zod"
import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import { createSnapshot, deleteSnapshot, listSnapshots } from "../core/snapshots.ts"
import type { Access } from "../gate/access.ts"
import { randomHex } from "../lib/random-hex.ts"
import type { Account } from "../store/users.ts"
import { sandboxIdOf, wireId } from "./ids.ts"
import { logsOf } from "./logs.ts"
import { metricsOf } from "./metrics.ts"
import { pageOf } from "./paging.ts"
import * as sandboxes from "./sandboxes.ts"
import * as shapes from "./shapes.ts"
import { timeoutSecDefault } from "./shapes.ts"
import { viewCreated, viewDetail, viewListed } from "./views.ts"

export type Call<Body = unknown, Query = unknown> = {
  core: Core
  account: Account
  tokenFor: KeyHolder["tokenFor"]
  params: Record<string, string>
  body: Body
  query: Query
  signal: AbortSignal
}

export type Route = {
  method: "GET" | "POST" | "PUT" | "DELETE"
  paths: readonly string[]
  access: Access
  body: z.ZodType
  query: z.ZodType
  answer: (call: Call) => Promise<Response>
}

const sandbox = (can: Permission): Access => ({ can, of: "sandbox" })
const account = (can: Permission): Access => ({ can, of: "account" })

function route<
  Body extends z.ZodType = typeof shapes.Nothing,
  Query extends z.ZodType = typeof shapes.Nothing,
>(
  call: string,
  access: Access,
  given: {
    body?: Body
    query?: Query
    answer: (call: Call<z.infer<Body>, z.infer<Query>>) => Promise<Response>
  },
): Route {
  const [method = "", ...paths] = call.split(" ")
  return {
    method: method as Route["method"],
    paths,
    access,
    body: given.body ?? shapes.Nothing,
    query: given.query ?? shapes.Nothing,
    answer: given.answer as Route["answer"],
  }
}

/** Without a body: its answer must say that it is empty, or some SDKs wait for JSON. */
const done = () => new Response(null, { status: 204 })
const idOf = ({ params }: Pick<Call, "params">) => params["id"] ?? ""

function paged(items: unknown[], nextToken: string | undefined): Response {
  return Response.json(items, { headers: nextToken === undefined ? {} : { "x-next-token": nextToken } })
}

export const routes: readonly Route[] = [
  route("POST /sandboxes /v2/sandboxes", account("create"), {
    body: shapes.NewSandbox,
    async answer(call) {
      const made = await sandboxes.create(call, call.body, call)
      return Response.json(viewCreated(made, call), { status: 201 })
    },
  }),
  route("GET /sandboxes", sandbox("read"), {
    query: shapes.ListSandboxes,
    async answer(call) {
      const { page } = await sandboxes.list(call, { ...call.query, state: "running" })
      return Response.json(page.map(viewListed))
    },
  }),
  route("GET /v2/sandboxes", sandbox("read"), {
    query: shapes.ListSandboxes,
    async answer(call) {
      const { page, nextToken } = await sandboxes.list(call, call.query)
      return paged(page.map(viewListed), nextToken)
    },
  }),
  route("GET /sandboxes/:id", sandbox("read"), {
    async answer(call) {
      return Response.json(viewDetail(await sandboxes.find(call, idOf(call)), call))
    },
  }),
  route("DELETE /sandboxes/:id", sandbox("destroy"), {
    async answer(call) {
      await sandboxes.kill(call, idOf(call))
      return done()
    },
  }),
  route("POST /sandboxes/:id/connect /v2/sandboxes/:id/connect", sandbox("power"), {
    body: shapes.Connect,
    async answer(call) {
      const connected = await sandboxes.connect(call, idOf(call), { timeoutSec: call.body.timeout })
      const status = connected.isResumed ? 201 : 200
      return Response.json(viewCreated(connected.sandbox, call), { status })
    },
  }),
  route("POST /sandboxes/:id/resume", sandbox("power"), {
    body: shapes.Resume,
    async answer(call) {
      const { timeout: timeoutSec, autoPause } = call.body
      const resumed = await sandboxes.connect(call, idOf(call), { timeoutSec, autoPause, isStrict: true })
      return Response.json(viewCreated(resumed.sandbox, call), { status: 201 })
    },
  }),
  route("POST /sandboxes/:id/pause", sandbox("power"), {
    async answer(call) {
      await sandboxes.pause(call, idOf(call))
      return done()
    },
  }),
  route("POST /sandboxes/:id/timeout", sandbox("edit"), {
    body: shapes.Timeout,
    async answer(call) {
      await sandboxes.setTimeoutOf(call, idOf(call), call.body.timeout)
      return done()
    },
  }),
  route("POST /sandboxes/:id/refreshes", sandbox("edit"), {
    body: shapes.Refresh,
    async answer(call) {
      await sandboxes.extend(call, idOf(call), call.body.duration ?? timeoutSecDefault)
      return done()
    },
  }),
  route("PUT /sandboxes/:id/network", sandbox("edit"), {
    body: shapes.Network,
    async answer(call) {
      await sandboxes.setNetwork(call, idOf(call), call.body)
      return done()
    },
  }),
  route("GET /sandboxes/:id/metrics", sandbox("read"), {
    async answer(call) {
      const found = await sandboxes.find(call, idOf(call))
      // A sandbox that stands still is not woken for its figures.
      const isRunning = found.state.kind === "hot"
      return Response.json(isRunning ? [await metricsOf(call.core, call.account, found)] : [])
    },
  }),
  route("GET /sandboxes/:id/logs /v2/sandboxes/:id/logs", sandbox("read"), {
    query: shapes.Logs,
    async answer(call) {
      const { id } = await sandboxes.find(call, idOf(call))
      return Response.json(await logsOf(call.core, call.account, id, call.query.limit))
    },
  }),
  route("POST /sandboxes/:id/fork", account("create"), {
    body: shapes.Fork,
    async answer(call) {
      const { count, timeout } = call.body
      const made = await sandboxes.fork(call, idOf(call), {
        count: count ?? 1,
        timeoutSec: timeout ?? timeoutSecDefault,
        signal: call.signal,
      })
      const views = made.map((one) => ({ sandbox: viewCreated(one, call) }))
      return Response.json(views, { status: 201 })
    },
  }),
  route("POST /sandboxes/:id/snapshots", sandbox("snapshots"), {
    body: shapes.NewSnapshot,
    async answer(call) {
      const name = call.body.name ?? `snapshot-${randomHex(8)}`
      const made = await createSnapshot(call.core, call.account, sandboxIdOf(idOf(call)), name)
      return Response.json({ snapshotID: made.name, names: [made.name] }, { status: 201 })
    },
  }),
  route("GET /snapshots", account("snapshots"), {
    query: shapes.ListSnapshots,
    async answer({ core, account, query }) {
      const wanted = (await listSnapshots(core, account)).filter(
        ({ state, name, sourceId }) =>
          state === "ready" &&
          (query.name === undefined || query.name === name) &&
          (query.sandboxID === undefined || query.sandboxID === wireId(sourceId)),
      )
      const { page, nextToken } = pageOf(wanted, { ...query, order: "desc" })
      return paged(
        page.map(({ name }) => ({ snapshotID: name, names: [name] })),
        nextToken,
      )
    },
  }),
  route("DELETE /templates/:id", account("snapshots"), {
    async answer({ core, account, params }) {
      await deleteSnapshot(core, account, params["id"] ?? "")
      return done()
    },
  }),
]
