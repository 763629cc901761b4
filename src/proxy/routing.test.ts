/** The routing table of the front: host, path, method and peer in, a destination out. */

import { expect, test } from "bun:test"
import type { RequestHead } from "./head.ts"
import { destinationOf } from "./routing.ts"

const zone = { domain: "box.test", apiHosts: ["api.box.test"] }
const upgrade: RequestHead["headers"] = [
  ["Connection", "upgrade"],
  ["Upgrade", "websocket"],
]

test.each<[string, Partial<RequestHead>, string, object]>([
  [
    "an alias, in any case and with a port",
    { host: "Web.Box.Test:8080" },
    "1.2.3.4",
    { kind: "alias", alias: "web" },
  ],
  [
    "an alias with a WebSocket",
    { host: "web.box.test", headers: upgrade },
    "1.2.3.4",
    { kind: "alias", alias: "web" },
  ],
  ["two labels below the domain", { host: "a.b.box.test" }, "1.2.3.4", { kind: "nowhere" }],
  ["the domain itself", { host: "box.test" }, "1.2.3.4", { kind: "api" }],
  ["a name of the API below the domain", { host: "api.box.test" }, "1.2.3.4", { kind: "api" }],
  ["an address", { host: "127.0.0.1:8080" }, "1.2.3.4", { kind: "api" }],
  ["a WebSocket of the API", { headers: upgrade }, "1.2.3.4", { kind: "api_socket" }],
  [
    "a proxy's question on this host",
    { target: "/caddy/ask?domain=web.box.test" },
    "127.0.0.1",
    { kind: "certificate_ask", query: "?domain=web.box.test" },
  ],
  ["the same question from elsewhere", { target: "/caddy/ask?domain=x" }, "1.2.3.4", { kind: "api" }],
  ["the same question as a POST", { target: "/caddy/ask", method: "POST" }, "127.0.0.1", { kind: "api" }],
  [
    "the question's path at an alias",
    { host: "web.box.test", target: "/caddy/ask" },
    "127.0.0.1",
    { kind: "alias", alias: "web" },
  ],
])("%s", (_, difference, peer, destination) => {
  const request: RequestHead = {
    method: "GET",
    target: "/",
    version: "1.1",
    headers: [],
    host: "box.test",
    framing: { kind: "none" },
    ...difference,
  }
  expect(destinationOf(request, { zone, peer })).toEqual(destination as never)
})
