/** The command `bhatti exec` is the hot path of the whole program, with a single WebSocket. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { command } from "../command.ts"
import { envFileOption, envOf, envText } from "../environment.ts"
import { checkFits } from "../exec-fits.ts"
import { execHere, refuseKeys, reportExec } from "../exec-here.ts"
import { exitSandboxSide } from "../exit-codes.ts"

export const exec = command({
  args: ["sandbox"],
  rest: { name: "command", kind: "command" },
  description: `Everything after the sandbox's name is the command; write -- before it if it could be taken for an option. No shell is involved:
use sh -c '...' for one. It runs as user lohar in /workspace, and sudo inside gives root; in an image that you brought, as the user, in the directory and
with the variables that the image names (bhatti inspect shows them). Output streams as it comes.

${envText}

With -t the command's TERM is yours if small images know it, otherwise xterm-256color; -e TERM=... overrides it.
-it needs a terminal for input; without -t, -i also forwards a pipe or a file.

Ctrl-C and SIGTERM are forwarded, and the command may take its time to end; a second one kills it, and without a terminal it is
killed 10 s after the first. A command that has not started yet, because its sandbox is still waking, is not run.

A lost connection is opened again, and the command goes on as if nothing had happened. It waits a minute for that
(--reconnect) and is killed then; so it is when bhatti itself is killed. With --json Ctrl-C kills it at once. With --detach it needs no client at all: see bhatti ps, logs, attach, wait and kill.

Exit code: the command's own, or 128 + the signal that ended it; 2 if an option is wrong, such as a user or a directory
that does not exist; 124 if --timeout ended it; 125 if bhatti failed, 126 if the command cannot be run, 127 if there is no such command; 130 after Ctrl-C.
Where the code hides the reason, such as too little memory, a full disk or a kill, a line on standard error says it; with --json it is in
reason, by and detail.`,
  options: {
    stdin: { type: "flag", short: "i", summary: "Forward standard input" },
    tty: { type: "flag", short: "t", summary: "Run it in a terminal, for interactive programs" },
    env: {
      type: "variables",
      short: "e",
      value: "K=V,...",
      summary: "Environment variables; may be repeated",
    },
    envFile: envFileOption,
    cwd: {
      type: "text",
      short: "w",
      value: "DIR",
      summary: "Working directory; a relative one begins at the default",
      fallback: "/workspace, or the image's",
    },
    user: {
      type: "text",
      short: "u",
      value: "USER",
      summary: "User to run as, maybe with a group: USER[:GROUP], names or ids",
      fallback: "lohar, or the image's",
    },
    reconnect: {
      type: "seconds",
      value: "TIME",
      max: limits.execGraceSecMax,
      summary: "How long it waits for us after a lost connection",
      fallback: "60",
    },
    detach: { type: "flag", short: "d", summary: "Start it without a client and print its id" },
    name: { type: "text", value: "NAME", summary: "With --detach: a name for it, besides its id" },
    timeout: {
      type: "seconds",
      value: "TIME",
      max: limits.execTimeoutSecMax,
      summary: "Kill it after this time: 90, 5m or 2h",
      fallback: `none; ${limits.execTimeoutSecDefault} with --json`,
    },
  },
  examples: [
    "bhatti exec dev -- npm install",
    "bhatti exec dev -- sh -c 'echo $API_KEY'",
    "bhatti exec dev -- cat /workspace/data.json | jq .name",
    "echo hi | bhatti exec -i dev -- cat",
    "bhatti exec -t dev -- top",
    "bhatti exec -d --name build dev -- make all",
    "bhatti exec -e 'DSN=host=db,port=5432' -e DEBUG=1 --env-file ./app.env dev -- npm test",
  ],
  refuse: ({ options }) =>
    options.name !== undefined && !options.detach ? "--name needs --detach" : undefined,
  async run({ client, args, rest, options, isJson, out, report }) {
    const env = await envOf(options)
    const shared = {
      cmd: rest,
      env,
      cwd: options.cwd,
      user: options.user,
      timeout_sec: options.timeout,
    }
    checkFits(shared)
    if (!options.detach && !isJson) {
      const refusal = await refuseKeys("exec", options)
      if (refusal) {
        await report(refusal)
        return exitSandboxSide
      }
      return await execHere(
        { client, out, report },
        {
          sandbox: args.sandbox,
          start: shared,
          hasTerminal: options.tty,
          isInputForwarded: options.stdin,
          reconnectSec: options.reconnect,
        },
      )
    }
    let run: ExecStream | undefined
    try {
      if (options.detach) {
        const kept = {
          name: options.name,
          stdin: options.stdin,
          ...(options.tty && { tty: detachedTerminal }),
        }
        const process = await client.startProcess({
          params: { id: args.sandbox },
          body: { ...shared, ...kept },
        })
        if (isJson) await out.json(process)
        else await out.result(process.process_id)
        return 0
      }
      const { execAsJson } = await import("../buffered-exec.ts")
      const reconnection = options.reconnect === undefined ? {} : { forSec: options.reconnect }
      const timeout_sec = options.timeout ?? limits.execTimeoutSecDefault
      const start = { ...shared, timeout_sec, stdin: options.stdin }
      run = client.execStream(args.sandbox, start, reconnection)
      return await execAsJson(run, { out, isInputForwarded: options.stdin })
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      return await reportExec(error, {
        ...{ client, report, sandbox: args.sandbox, cmd: rest },
        hasStarted: run?.hasStarted,
      })
    }
  },
})

/** Its first client changes the size. */
const detachedTerminal = { rows: 24, cols: 80 }
