/** The command `bhatti shell` opens an interactive terminal in a session that outlives it. */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import { adviceFor } from "../advice.ts"
import type { Attached } from "../attach-terminal.ts"
import { command, type DaemonContext } from "../command.ts"
import { endWords } from "../end-words.ts"
import { exitSandboxSide } from "../exit-codes.ts"
import { fateOf, isExplained } from "../lost-sandbox.ts"
import { isTerminal, type Output } from "../output.ts"

export const shell = command({
  optionalArgs: ["sandbox", "session"],
  description: `Attaches to SESSION, an id or name from bhatti ps; by default to the newest detached session, or to a new one if there is none.
An image without a shell gets the host's busybox. SANDBOX may be omitted if there is only one. The session of the init script is called init.

Ctrl+\\ detaches: the shell keeps running and its output is kept; attaching again continues it. A lost connection detaches too.
A session has one client at a time; attaching takes it over.

Exit code: the shell's own; 0 after Ctrl+\\; 125 if bhatti failed, the connection was lost or the session was taken over.`,
  options: {
    new: { type: "flag", summary: "Start another session even if one is detached" },
  },
  refuse: ({ args, options }) =>
    options.new && args.session !== undefined ? "--new starts another session; leave SESSION out" : undefined,
  examples: ["bhatti shell dev", "bhatti sh dev init", "bhatti shell dev --new"],
  async run({ client, args, options, out, report }) {
    try {
      if (!((await isTerminal(0)) && (await isTerminal(1)))) throw notAtTerminal(args.sandbox)
      const sandbox = args.sandbox ?? (await onlySandbox(client))
      const attached = await attachTo(client, { sandbox, session: args.session, isNew: options.new }, out)
      return await tellHowItEnded(attached, { client, sandbox, wanted: args.session, out, report })
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      await report(error)
      return exitSandboxSide
    }
  },
})

async function attachTo(
  client: Client,
  wanted: { sandbox: string; session: string | undefined; isNew: boolean },
  out: Output,
): Promise<Attached> {
  const [{ attachTerminal }, { Terminal }] = await Promise.all([
    import("../attach-terminal.ts"),
    import("../terminal.ts"),
  ])
  using terminal = await Terminal.open()
  return await attachTerminal({
    terminal,
    out,
    open: (size) =>
      client.shellStream(wanted.sandbox, {
        ...size,
        ...(wanted.session === undefined ? {} : { session: wanted.session }),
        ...(wanted.isNew ? { new: "true" } : {}),
      }),
  })
}

async function tellHowItEnded(
  { left, session }: Attached,
  context: {
    client: Client
    sandbox: string
    wanted: string | undefined
    out: Output
    report: DaemonContext["report"]
  },
): Promise<number> {
  const { client, sandbox, wanted, out, report } = context
  const again = session && `bhatti shell ${sandbox} ${session.name ?? session.session_id}`
  switch (left.kind) {
    case "exited": {
      // The code of a shell that exits is that of its last command, of which the user has seen more.
      const words = left.ended?.signal ? endWords(left.ended) : undefined
      if (words !== undefined) await out.talk(`\nbhatti: ${words}`)
      return left.exitCode
    }
    case "detached":
      await out.talk(again === undefined ? "\ndetached" : `\ndetached; it keeps running. Come back: ${again}`)
      return left.exitCode
    case "taken_over":
      await out.talk(`\nanother client has taken this session over. Take it back: ${again}`)
      return exitSandboxSide
    case "lost":
      if (again === undefined)
        await report(wanted === undefined ? left.error : notAttached(left.error, sandbox))
      else {
        await out.talk("")
        await report(await whyLost(left.error, { client, sandbox, again }))
      }
      return exitSandboxSide
  }
}

async function fateOfLost(
  error: AppError,
  { client, sandbox }: { client: Client; sandbox: string },
): Promise<"destroyed" | "stopped" | "told" | undefined> {
  if (error.code !== "unavailable") return undefined
  if (!isExplained(error)) return fateOf(sandbox, client)
  if (error.reason === "destroyed") return "destroyed"
  return error.reason === "stopped" || error.reason === "daemon_stopped" ? "stopped" : "told"
}

async function whyLost(
  error: AppError,
  { client, sandbox, again }: { client: Client; sandbox: string; again: string },
): Promise<AppError> {
  const { code, message } = error
  switch (await fateOfLost(error, { client, sandbox })) {
    case "told":
      return error
    case "destroyed":
      return new AppError(code, `the sandbox "${sandbox}" was destroyed, and the session with it`, {
        cause: error,
      })
    case "stopped":
      return new AppError(code, `the sandbox "${sandbox}" was stopped; the session is kept`, {
        cause: error,
        hint: again,
      })
    case undefined:
      return new AppError(code, `${message}; the session keeps running`, { cause: error, hint: again })
  }
}

/** The sandbox exists, the named session does not. */
function notAttached(error: AppError, sandbox: string): AppError {
  if (error.code !== "not_found" || adviceFor(error) !== undefined) return error
  return new AppError(error.code, error.message, { cause: error, hint: `bhatti ps ${sandbox}` })
}

async function onlySandbox(client: Client): Promise<string> {
  const sandboxes = await client.listSandboxes()
  const [only] = sandboxes
  if (only === undefined)
    throw new AppError("not_found", "there is no sandbox", { hint: "bhatti create --name dev" })
  if (sandboxes.length === 1) return only.name
  throw new AppError("invalid", `there are ${sandboxes.length} sandboxes; say which one`, {
    hint: `bhatti shell ${only.name}`,
  })
}

function notAtTerminal(sandbox = "SANDBOX"): AppError {
  return new AppError("invalid", "shell needs a terminal for input and output", {
    hint: `bhatti exec ${sandbox} -- COMMAND`,
  })
}
