/** Which program a service's command plainly begins with. */

import { expect, test } from "bun:test"
import { programOf } from "./services.ts"

test.each([
  ["redis-server", "redis-server"],
  ["  /srv/run.sh --port 80", "/srv/run.sh"],
  ["exec ./web", "./web"],
  ["npm start && true", "npm"],
])("of %j it is %s", (command, program) => {
  expect(programOf(command)).toBe(program)
})

test.each([
  ["a variable first", "PORT=80 npm start"],
  ["a shell's own word", "while :; do job; done"],
  ["a builtin", "cd /srv && npm start"],
  ["exec alone", "exec"],
  ["a substitution", "$RUN it"],
  ["a quoted word", "'my program'"],
  ["a function", "f () { g; }; f"],
  ["an operator behind it", "job; other"],
  ["a subshell", "(job)"],
  ["a group", "{ job; }"],
])("with %s only the shell can say", (_, command) => {
  expect(programOf(command)).toBeUndefined()
})
