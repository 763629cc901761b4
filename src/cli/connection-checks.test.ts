/** The doctor's judgement of connections that are not at hand. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { type ConnectionFacts, connectionChecks } from "./connection-checks.ts"

const connected: ConnectionFacts = {
  url: "http://localhost:8080",
  token: { source: "BHATTI_TOKEN" },
  ownVersion: "1.0.0",
  daemon: { kind: "answers", version: "1.0.0", warnings: [], clockSkewMs: 100 },
}

test("the connection: reached, refused, another version, another time", () => {
  expect(connectionChecks(connected).map(({ area, status }) => `${area} ${status}`)).toEqual([
    "daemon ok",
    "key ok",
    "version ok",
  ])
  const other = connectionChecks({
    ...connected,
    daemon: { kind: "answers", version: "2.0.0", warnings: ["slow"], clockSkewMs: -60_000 },
  }).filter(({ status }) => status !== "ok")
  expect(other.map(({ area, status, text }) => `${area} ${status} ${text}`)).toEqual([
    "version warn 1.0.0 here, 2.0.0 at the daemon",
    "daemon warn slow",
    "clock warn the daemon's clock is 60 s behind this one",
  ])
  const refused = new AppError("unauthenticated", "the API key is not valid")
  expect(connectionChecks({ ...connected, daemon: { kind: "fails", error: refused } })).toMatchObject([
    { area: "daemon", status: "ok" },
    { area: "key", status: "fail", fix: "bhatti setup" },
  ])
  const gone = new AppError("unavailable", "no bhatti daemon answers", { hint: "start it" })
  expect(connectionChecks({ ...connected, daemon: { kind: "fails", error: gone } })).toEqual([
    { area: "daemon", status: "fail", text: "no bhatti daemon answers", fix: "start it" },
  ])
})
