/** The command that each kind of error advises. */

import { expect, test } from "bun:test"
import { AppError, type ErrorCode, type Subject } from "@bhatti/contract/errors"
import { adviceFor } from "./advice.ts"

const table: [ErrorCode, Subject | undefined, string | undefined, string | undefined][] = [
  ["not_found", { kind: "sandbox", name: "x" }, undefined, "bhatti list"],
  ["not_found", { kind: "sandbox", name: "x" }, "did you mean y?", "did you mean y?"],
  ["conflict", { kind: "sandbox", name: "x" }, "-", "choose another name, or: bhatti destroy x"],
  ["not_found", { kind: "snapshot", name: "x" }, undefined, "bhatti snapshot list"],
  ["conflict", { kind: "snapshot", name: "x" }, "-", "choose another name, or: bhatti snapshot delete x"],
  ["limit_exceeded", { kind: "snapshot" }, "-", "bhatti snapshot delete one of them"],
  ["not_found", { kind: "secret", name: "x" }, undefined, "bhatti secret list"],
  ["limit_exceeded", { kind: "secret" }, "-", "bhatti secret delete one of them"],
  ["not_found", { kind: "user", name: "x" }, undefined, "bhatti user list"],
  ["conflict", { kind: "user", name: "x" }, undefined, "bhatti user rotate-key x"],
  ["not_found", { kind: "session", sandbox: "x" }, undefined, "bhatti ps x"],
  ["not_found", { kind: "session", sandbox: "x" }, "no session was started", "no session was started"],
  ["conflict", { kind: "alias", alias: "a" }, "-", "choose another one with --alias"],
  [
    "conflict",
    { kind: "alias", alias: "a", port: 80 },
    "-",
    "choose another one, or unpublish port 80 with --alias a first",
  ],
  ["limit_exceeded", { kind: "published_port" }, "-", "bhatti unpublish one of them"],
  ["not_found", { kind: "published_port", sandbox: "x" }, undefined, "bhatti publish x --list"],
  [
    "unavailable",
    { kind: "failed_starts", sandbox: "x", seconds: 5 },
    "-",
    "it is tried again in 5 s, or at once by: bhatti start x --force",
  ],
  [
    "limit_exceeded",
    { kind: "disk_quota", sandbox: "x" },
    "-",
    "destroy another sandbox or delete a snapshot, or ask the operator for a higher quota; to remove files inside: bhatti start x",
  ],
  ["not_found", { kind: "installation", data_dir: "/var/lib/bhatti" }, undefined, "sudo bhatti init"],
  [
    "not_found",
    { kind: "installation", data_dir: "/d", image: "docker" },
    "images of this host: minimal",
    "images of this host: minimal; to install it: sudo bhatti init --image docker --data-dir /d",
  ],
  ["unavailable", { kind: "host" }, undefined, "sudo bhatti doctor says what this host lacks"],
  ["unavailable", { kind: "host" }, "see the log", "see the log; sudo bhatti doctor"],
  ["unavailable", undefined, "try again", "try again"],
  ["unavailable", undefined, undefined, undefined],
]

test("an error's code and subject become the command to type", () => {
  for (const [code, subject, hint, advice] of table)
    expect(adviceFor(new AppError(code, "it failed", { subject, hint }))).toBe(advice)
})

test("a subject of a later daemon leaves the hint as it is", () => {
  const subject = { kind: "volume" } as unknown as Subject
  expect(adviceFor({ code: "not_found", subject, hint: "see the volumes" })).toBe("see the volumes")
})
