/** `bhatti run` makes a sandbox of an image, runs its program here, and may destroy it at the end. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Client } from "@bhatti/sdk/client"
import { createOrRollBack } from "../cancel-create.ts"
import { command } from "../command.ts"
import { egressOptions, netPolicyOf, refuseEgress } from "../egress.ts"
import { envFileOption, envOf, envText } from "../environment.ts"
import { execHere, refuseKeys } from "../exec-here.ts"
import { exitSandboxSide } from "../exit-codes.ts"
import { pullOption, withImage } from "../image-at-hand.ts"
import type { Output } from "../output.ts"
import { sizeOptions } from "../sandbox-size.ts"
import { onSignals } from "../signals.ts"
import { noticeIfSlow } from "../slow-notice.ts"

const mainName = "main"

export const run = command({
  args: ["image"],
  rest: { name: "command", kind: "command", least: 0 },
  description: `The program is the image's ENTRYPOINT with its CMD; words behind IMAGE replace the CMD. It runs as the image's user, in its directory and with
its variables, as the process main (bhatti ps), with your input, output and signals as in bhatti exec.

When it has ended the sandbox stays, and with it all files, until bhatti destroy; with --rm it is destroyed then, also after Ctrl-C. With -d the
program runs on as the session main, again at each boot, and the sandbox's name is printed.

${envText}

Exit code: the program's own, or 128 + the signal that ended it; 125 if bhatti failed, 126 if the program cannot be run, 127 if there is none such; 130 after Ctrl-C.`,
  options: {
    rm: { type: "flag", summary: "Destroy the sandbox at the end" },
    stdin: { type: "flag", short: "i", summary: "Forward standard input" },
    tty: { type: "flag", short: "t", summary: "Run it in a terminal, for interactive programs" },
    detach: { type: "flag", short: "d", summary: "Leave it running and print the sandbox's name" },
    pull: pullOption,
    name: {
      type: "text",
      value: "NAME",
      summary: `Name of the sandbox: ${limits.sandboxNameRule}`,
      fallback: "generated",
    },
    env: {
      type: "variables",
      short: "e",
      value: "K=V,...",
      summary: "Variables of every command in the sandbox; may be repeated",
    },
    envFile: envFileOption,
    secret: {
      type: "list",
      value: "NAME",
      summary: "Secret to pass as an environment variable; may be repeated",
    },
    cwd: { type: "text", short: "w", value: "DIR", summary: "Working directory", fallback: "the image's" },
    user: {
      type: "text",
      short: "u",
      value: "USER",
      summary: "User to run as: USER[:GROUP], names or ids",
      fallback: "the image's",
    },
    ...sizeOptions,
    ...egressOptions,
  },
  refuse: ({ options }) => {
    if (options.detach && options.rm) return "--rm needs the end of the program; leave -d out"
    if (options.detach && (options.user ?? options.cwd) !== undefined)
      return "-d runs the image's program as the image says; leave --user and --cwd out"
    if (options.detach && (options.stdin || options.tty))
      return "-d has no terminal here; bhatti shell NAME main goes to it"
    return refuseEgress(options)
  },
  examples: [
    "bhatti run --rm registry.example.com/tool:1 --help",
    "bhatti run --rm -it debian:12 bash",
    "echo 1 | bhatti run --rm -i -e MODE=fast registry.example.com/filter",
    "bhatti run -d --name web registry.example.com/web:2",
  ],
  async run({ client, args, rest, options, isJson, out, report }) {
    const refusal = await refuseKeys("run", options)
    if (refusal) {
      await report(refusal)
      return exitSandboxSide
    }
    const body = {
      name: options.name,
      cpus: options.cpus,
      memory_mb: options.memory,
      disk_size_mb: options.disk,
      env: await envOf(options),
      secrets: options.secret.length === 0 ? undefined : options.secret,
      net_policy: netPolicyOf(options),
      run: options.detach ? rest : undefined,
    }
    const made = await withImage(
      { client, out },
      { image: args.image, pull: options.pull, isQuiet: isJson },
      (image) => make(client, out, { ...body, image }),
    ).catch(async (error: unknown) => {
      if (!(error instanceof AppError)) throw error
      await report(error)
      return { exitCode: exitSandboxSide }
    })
    if ("exitCode" in made) return made.exitCode
    const { sandbox } = made
    if (options.detach) return isJson ? await out.json(sandbox) : await out.result(sandbox.name)
    const cmd = programOf(sandbox, rest)
    if (cmd.length === 0) {
      await destroy(client, sandbox)
      await report(
        new AppError("invalid", `image "${args.image}" names no program to run`, {
          hint: `bhatti run ${args.image} COMMAND`,
        }),
      )
      return exitSandboxSide
    }
    const start = { cmd, cwd: options.cwd, user: options.user, name: mainName }
    try {
      return await execHere(
        { client, out, report },
        {
          sandbox: sandbox.id,
          start,
          hasTerminal: options.tty,
          isInputForwarded: options.stdin,
          reconnectSec: undefined,
        },
      )
    } finally {
      if (options.rm) await destroy(client, sandbox)
      else await out.hint(`sandbox/${sandbox.name} stays; bhatti destroy ${sandbox.name} removes it`)
    }
  },
})

type Body = Parameters<Client["createSandbox"]>[0]["body"]

async function make(
  client: Client,
  out: Output,
  body: Body,
): Promise<{ sandbox: Sandbox } | { exitCode: number }> {
  using _notice = noticeIfSlow(out, async () => `preparing a sandbox of ${body.image}`)
  const made = await createOrRollBack({ client, out }, async (signal) => ({
    sandboxes: [await client.createSandbox({ body, signal })],
    isNew: true,
  }))
  if ("exitCode" in made) return made
  const [sandbox] = made.sandboxes
  if (!sandbox) throw new Error("a create gave no sandbox")
  return { sandbox }
}

function programOf({ image_config: config }: Sandbox, words: readonly string[]): string[] {
  return [...(config?.entrypoint ?? []), ...(words.length > 0 ? words : (config?.cmd ?? []))]
}

/** A further Ctrl-C must not leave the sandbox behind. */
async function destroy(client: Client, { id }: Sandbox): Promise<void> {
  using _held = onSignals(["SIGINT", "SIGTERM", "SIGHUP"], () => undefined)
  await client.destroySandbox({ params: { id } })
}
