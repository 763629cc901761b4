/** A good request for every endpoint of the contract; one without an entry does not compile. */

import { type Api, api } from "@bhatti/contract/api"
import type { Endpoint } from "@bhatti/contract/endpoint"

type Sample<E> = { query?: string; body?: unknown } & (E extends { socket: unknown }
  ? {
      /** The client's messages once the socket is open. */
      messages: string[]
    }
  : unknown)

const samples: { [Name in keyof Api]: Sample<Api[Name]> } = {
  health: {},
  version: {},
  listSandboxes: {},
  createSandbox: { body: {} },
  createSandboxes: { body: { count: 2 } },
  getSandbox: {},
  destroySandbox: {},
  updateSandbox: { body: {} },
  whySandbox: {},
  stopSandbox: {},
  startSandbox: {},
  repairSandbox: {},
  restartSandbox: {},
  checkpointSandbox: { body: { name: "snap" } },
  listSnapshots: {},
  getSnapshot: {},
  deleteSnapshot: {},
  resumeSnapshot: { body: {} },
  listEvents: {},
  exec: { body: { cmd: ["true"] } },
  execSocket: { messages: ['{"cmd":["true"]}'] },
  shellSocket: { query: "?new=true", messages: [] },
  listProcesses: {},
  startProcess: { body: { cmd: ["true"] } },
  getProcess: {},
  deleteProcess: {},
  signalProcess: { body: {} },
  writeProcess: { query: "?end=true", body: "text" },
  resizeProcess: { body: { rows: 24, cols: 80 } },
  waitProcess: { query: "?timeout_sec=1" },
  readProcess: {},
  processSocket: { query: "?mode=watch", messages: [] },
  createSocketTicket: {},
  createKey: { body: { can: ["exec"] } },
  listKeys: {},
  revokeKey: {},
  listSessions: {},
  listServices: {},
  controlService: { body: { action: "restart" } },
  killSession: { body: {} },
  readSession: {},
  readFile: { query: "?path=/x" },
  writeFile: { query: "?path=/x", body: "text" },
  setAttributes: { body: { path: "/x", set: { "user.a": "b" } } },
  removeFile: { query: "?path=/x" },
  makeDirectory: { body: { path: "/x" } },
  moveFile: { body: { from: "/x", to: "/y" } },
  watchFiles: { query: "?path=/workspace" },
  createWatch: { body: { path: "/workspace" } },
  readWatch: {},
  deleteWatch: {},
  readArchive: { query: "?path=/x" },
  writeArchive: { query: "?path=/x", body: "tar" },
  listImages: {},
  pullImage: { body: { ref: "registry.example/app:1" } },
  buildImage: { body: '{"name":"app","dockerfile":"FROM minimal"}\n' },
  importImage: { query: "?name=app", body: "tar" },
  saveImage: { body: { name: "app" } },
  listHostImages: {},
  installHostImage: {},
  exportImage: {},
  pushImage: { body: { ref: "registry.example/app:1" } },
  pruneImages: {},
  getImage: {},
  tagImage: { body: { name: "other" } },
  deleteImage: {},
  listTasks: {},
  getTask: {},
  readTask: {},
  cancelTask: {},
  listRegistries: {},
  logIn: { body: { host: "registry.example", username: "me", password: "secret" } },
  logOut: {},
  listSecrets: {},
  setSecret: { body: { name: "A", value: "b" } },
  deleteSecret: {},
  listPorts: {},
  publishPort: { body: { port: 3000 } },
  listPublished: {},
  unpublishPort: {},
}

export type SampleRequest = {
  name: keyof Api
  method: string
  path: string
  body: string | undefined
  isPublic: boolean
  /** The endpoint is one sandbox's. */
  isOfSandbox: boolean
  /** The messages of a WebSocket. */
  messages: string[] | undefined
  /** The Accept header for the answer as a stream, if it has one. */
  streamType: string | undefined
}

/** `id` names the sandbox in every path. */
export function sampleRequests(id: string): SampleRequest[] {
  return (Object.keys(samples) as (keyof Api)[]).map((name) => {
    const { query = "", body, ...rest } = samples[name]
    const endpoint: Endpoint = api[name]
    const path = api[name].path
      .replace(":id", encodeURIComponent(id))
      .replace(":session", "s1")
      .replace(":watch", "w1")
      .replace(":process", "s1")
      .replace(":port", "3000")
      .replace(":name", "A")
    return {
      name,
      method: api[name].method,
      path: `${path}${query}`,
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
      isPublic: "isPublic" in api[name],
      isOfSandbox: api[name].path.includes(":id"),
      messages: "messages" in rest ? rest.messages : undefined,
      streamType: endpoint.stream?.accept,
    }
  })
}

/** Returns the answer's status if the WebSocket is refused, otherwise the daemon's first message. */
export async function askSocket(
  url: string,
  request: SampleRequest,
  headers: Record<string, string>,
): Promise<{ isOpened: boolean; message: unknown }> {
  const socket = new WebSocket(url.replace(/^http/, "ws") + request.path, { headers } as never)
  const told = Promise.withResolvers<{ isOpened: boolean; message: unknown }>()
  let isOpened = false
  socket.onopen = () => {
    isOpened = true
    for (const message of request.messages ?? []) socket.send(message)
  }
  socket.onmessage = ({ data }) => told.resolve({ isOpened, message: JSON.parse(data) })
  socket.onclose = () => told.resolve({ isOpened, message: undefined })
  try {
    return await told.promise
  } finally {
    socket.close()
  }
}
