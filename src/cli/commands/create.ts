/** `bhatti create`. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import { createOrRollBack } from "../cancel-create.ts"
import { command } from "../command.ts"
import { egressOptions, netPolicyOf, refuseEgress } from "../egress.ts"
import { envFileOption, envOf, envText } from "../environment.ts"
import { pullOption, withImage } from "../image-at-hand.ts"
import type { Output } from "../output.ts"
import { printNames, quietOption } from "../quiet.ts"
import { newSettingsOf, settingOptions } from "../sandbox-settings.ts"
import { sizeOptions } from "../sandbox-size.ts"
import { servicesFrom } from "../services.ts"
import { noticeIfSlow } from "../slow-notice.ts"
import { cpusText, secondsText, sizeText } from "../words.ts"

export const create = command({
  description: `The sandbox is running when the command returns. Without --name it gets a generated name. Ctrl-C rolls a create back.

An idle sandbox is paused, and later written to disk, until the next request. A program inside that waits for a timer due within a minute
(cron, a loop that sleeps, an interval) counts as activity, unless it is a server (it listens for connections) or wakes more than once a second: servers are
paused and wake at the next connection; use --keep-hot for a server with a schedule of its own. A later timer stops while the sandbox is paused or on disk, and continues with its remaining time.

${envText}

--label also takes one KEY=VALUE or several separated by commas, and may be repeated.

--init runs as the session init, which \`bhatti shell NAME init\` attaches to and \`bhatti logs NAME\` prints; --init @FILE reads the script from a file.
It runs again whenever the sandbox's machine boots (after bhatti restart, reboot inside, a crash or a restart of the host, not after bhatti stop),
unless --on-boot off is given. A failure is recorded as an event (sandbox.init_failed).

--start runs a command once, in a template, and waits until the command of --ready succeeds; then the template is frozen. The sandbox is a copy of
it in which the command runs already (as the session main), and so are your later ones with the same two commands, about as fast as any. In
the template the command has no network, no variables, secrets or files of the sandbox. docs/images.md has the rules for such programs, and the hooks that run in each copy.

--service names a program that is started with the sandbox and at each boot, in the order given, and runs again when it ends: always, only
on-failure, or never; each time in a row after a longer delay, up to 30 s. bhatti service list shows them, bhatti logs NAME SERVICE their output. A
restart or poweroff ends them in the reverse order; a pause, a stop and a copy keep them.

--init-system starts the init that the image has as its entry point, systemd, busybox or another, as the first process of namespaces of its own.
Commands, shells and services then run beside it, so that systemctl works. A power off inside stops the sandbox. docs/init-systems.md says more.

--run starts the program that the image is made to run (its ENTRYPOINT and CMD; words behind -- replace the CMD) as the session main, and again at each
boot. bhatti shell NAME main goes to it, bhatti logs NAME main prints its output. Without --run nothing of the image starts by itself.

An image that is not here is pulled first (--pull), as bhatti image pull does it, with progress; Ctrl-C cancels that too.

--ttl gives it a time to live. When that is over --on-ttl decides: pause saves its memory to disk, and the next request continues it with a new
lifetime; destroy destroys it with its disk; keep leaves it alone. An event (lifetime.ending) and a notice to connected clients come a minute before, or after half of a
shorter time. bhatti edit NAME --ttl gives it more at any time, bhatti why NAME says when it ends.

--recipe builds an image, as bhatti image build does, of a Dockerfile or of a script that begins with #! and is run in --image. The second create with
the same content builds nothing. With --start, or the labels sh.bhatti.start and sh.bhatti.ready of a Dockerfile, it finds the program running in memory too.

--file copies small files, up to about 700 KB in total; use bhatti cp for more.

A sandbox reaches the internet and your other sandboxes, by their names. With --egress deny it reaches only what --allow-host and
--allow-cidr name; each of them implies deny. It never reaches private networks or the host's own addresses. A copy
made with --from has its source's rules unless others are given.`,
  optionalArgs: ["name"],
  rest: { name: "command", kind: "behind" },
  options: {
    name: {
      type: "text",
      value: "NAME",
      summary: `Its name: ${limits.sandboxNameRule}`,
      fallback: "generated",
    },
    from: {
      type: "text",
      value: "SANDBOX",
      summary: "Copy this running sandbox, memory included; the copy has its size and image",
    },
    count: {
      type: "integer",
      value: "N",
      min: 1,
      max: limits.createCountMax,
      summary:
        "Create N sandboxes, all or none, named NAME-1 to NAME-N; with --from, all are copies of the same moment",
      fallback: 1,
    },
    ...sizeOptions,
    image: {
      type: "text",
      value: "IMAGE",
      summary: "Image to start from, or a reference to one in a registry",
      fallback: limits.imageDefault,
    },
    pull: pullOption,
    recipe: {
      type: "text",
      value: "FILE",
      summary: "Build the image of this Dockerfile, or of this script with #!, unless it is here",
    },
    cacheKey: {
      type: "text",
      value: "KEY",
      summary: "Key of the recipe's image, which is then built only once",
      fallback: "the recipe's content",
    },
    env: {
      type: "variables",
      short: "e",
      value: "K=V,...",
      summary: "Environment variables of every command; may be repeated",
    },
    envFile: envFileOption,
    init: { type: "text", value: "SCRIPT", summary: "Shell script to run in the sandbox, or @FILE" },
    start: {
      type: "text",
      value: "CMD",
      summary: "Command that runs already when the sandbox is made",
      fallback: "the image's",
    },
    ready: {
      type: "text",
      value: "CMD",
      summary: "Command that succeeds once the start command is ready",
      fallback: "true",
    },
    service: {
      type: "list",
      value: "NAME[:POLICY]=CMD",
      summary: "Program to keep running; POLICY is always, on-failure or never; may be repeated",
    },
    initSystem: {
      type: "switch",
      summary: "Start the image's init (systemd or another), and run commands beside it",
      fallback: "the image's",
    },
    run: { type: "flag", summary: "Start the image's program, with the words behind -- if there are any" },
    onBoot: {
      type: "switch",
      summary: "Run the init script at every boot; --on-boot off runs it only once",
      fallback: "on",
    },
    secret: {
      type: "list",
      value: "NAME",
      summary: "Secret to pass as an environment variable; may be repeated",
    },
    file: {
      type: "list",
      value: "LOCAL:GUEST",
      summary: "File to copy into the new sandbox; may be repeated",
    },
    label: { type: "labels", value: "K=V,...", summary: "Label for bhatti list --label; may be repeated" },
    ...egressOptions,
    keepHot: { type: "flag", summary: "Never pause it, however idle" },
    ...settingOptions,
    warmAfter: { ...settingOptions.warmAfter, fallback: "the host's" },
    coldAfter: { ...settingOptions.coldAfter, fallback: "the host's" },
    ttl: { ...settingOptions.ttl, summary: "Time to live: 90, 5m, 2h or never", fallback: "the host's" },
    onTtl: { ...settingOptions.onTtl, fallback: "the host's" },
    quiet: quietOption,
    ifNotExists: { type: "flag", summary: "Succeed without changes if the sandbox already exists" },
  },
  refuse: ({ args, rest, options }) => {
    if (rest.length > 0 && !options.run) return "a program behind -- needs --run"
    if (options.run && options.start !== undefined) return "--run and --start both name the main program"
    if (args.name !== undefined && options.name !== undefined) return "the name is given twice"
    if (options.cacheKey !== undefined && options.recipe === undefined) return "--cache-key needs --recipe"
    if (options.recipe !== undefined && options.from !== undefined)
      return "--recipe and --from both say what it starts from"
    if (options.ifNotExists && (args.name ?? options.name) === undefined)
      return "--if-not-exists needs --name"
    if (options.ifNotExists && options.count !== undefined) return "--if-not-exists is for one sandbox"
    if (options.ready !== undefined && options.start === undefined) return "--ready needs --start"
    if (options.onBoot !== undefined && options.init === undefined) return "--on-boot needs --init"
    return refuseEgress(options)
  },
  examples: [
    "bhatti create --name dev --cpus 2 --memory 1024",
    "bhatti create --name worker --env API_KEY=sk-abc,NODE_ENV=prod",
    "bhatti create --name db -e 'DSN=host=db,port=5432' --env-file ./app.env",
    'bhatti create --name builder --init "npm install && npm run build"',
    "bhatti create --name api --secret API_KEY --file ./app.env:/workspace/.env --label team=web",
    "bhatti create --name site --start 'python3 -m http.server 8000' --ready 'curl -sf localhost:8000'",
    "bhatti create --name app --service db='redis-server' --service web:on-failure='npm start'",
    "bhatti create --name server --image debian-systemd --init-system",
    "bhatti create --image registry.example.com/web:2 --name web --run",
    "bhatti create --recipe setup.sh --start 'python3 server.py' --ready 'curl -sf localhost:8000'",
    "bhatti create --from dev --name experiment",
    "bhatti create --name agent --allow-host '*.example.com' --allow-cidr 203.0.113.0/24",
    "bhatti create --from dev --name worker --count 5",
    "bhatti create --name job --ttl 2h --on-ttl destroy --label owner=ci",
    "bhatti create --disk 20G --json",
    'name=$(bhatti create -q) && bhatti exec "$name" -- uname -a',
  ],
  async run({ client, args, rest, options, isJson, out }) {
    const startMs = performance.now()
    const name = args.name ?? options.name
    const body = {
      name,
      from: options.from,
      cpus: options.cpus,
      memory_mb: options.memory,
      disk_size_mb: options.disk,
      env: await envOf(options),
      on_boot: options.onBoot,
      start_command: options.start,
      ready_command: options.ready,
      run: options.run ? rest : undefined,
      services: options.service.length === 0 ? undefined : servicesFrom(options.service),
      init_system: options.initSystem,
      init: options.init === undefined ? undefined : await initScript(options.init),
      secrets: options.secret.length === 0 ? undefined : options.secret,
      labels: options.label,
      net_policy: netPolicyOf(options),
      files: options.file.length === 0 ? undefined : await filesToSend(options.file, name),
      keep_hot: options.keepHot || undefined,
      ...newSettingsOf(options),
      if_not_exists: options.ifNotExists || undefined,
    }
    const { from } = options
    const { count } = options
    const make = async (image: string | undefined) => {
      using _notice = noticeIfSlow(out, () =>
        from === undefined ? whatItWaitsFor(client, name) : `copying ${from}`,
      )
      return await createOrRollBack({ client, out }, async (signal) => {
        if (count !== undefined)
          return {
            sandboxes: await client.createSandboxes({ body: { ...body, image, count }, signal }),
            isNew: true,
          }
        let isNew = true
        const onHeaders = (headers: Headers) => {
          isNew = headers.get("x-bhatti-existing") !== "true"
        }
        const sandbox = await client.createSandbox({ body: { ...body, image }, onHeaders, signal })
        return { sandboxes: [sandbox], isNew }
      })
    }
    const isQuiet = options.quiet || isJson
    const image = await imageAskedFor({ client, out }, { ...options, isQuiet })
    if (typeof image === "object") return image.exitCode
    const made = await withImage({ client, out }, { image, pull: options.pull, isQuiet }, make)
    if ("exitCode" in made) return made.exitCode
    const time = secondsText(performance.now() - startMs)
    if (isJson) return await out.json(count === undefined ? made.sandboxes[0] : made.sandboxes)
    if (options.quiet) return await printNames(out, made.sandboxes)
    for (const { name, cpus, memory_mb } of made.sandboxes) {
      if (!made.isNew) return await out.result(`sandbox/${name} unchanged (already exists)`)
      const size = `${cpusText(cpus)}, ${sizeText(memory_mb)}`
      await out.result(`sandbox/${name} created (${size})${count === undefined ? ` in ${time}` : ""}`)
      const next = nextCommand(name, options)
      if (count === undefined) await out.hint(`  try: bhatti ${next}`)
    }
    if (count !== undefined) await out.talk(`all in ${time}`)
  },
})

async function imageAskedFor(
  context: { client: Client; out: Output },
  asked: { image?: string | undefined; recipe?: string | undefined; cacheKey?: string | undefined } & {
    isQuiet: boolean
  },
): Promise<string | undefined | { exitCode: number }> {
  const { image: base, recipe: file, cacheKey: key, isQuiet } = asked
  if (file === undefined) return base
  const { imageOfRecipe } = await import("../recipe.ts")
  const found = await imageOfRecipe(context, { file, key, base, isQuiet })
  return "exitCode" in found ? found : found.image
}

/**
 * A create takes a tenth of a second, unless it is the first of its size or the host is busy. Asks the daemon for
 * the reason.
 */
async function whatItWaitsFor(client: Client, name: string | undefined): Promise<string | undefined> {
  try {
    const creating = (await client.listSandboxes()).filter(({ status }) => status === "creating")
    const own = creating.find((one) => one.name === name) ?? creating.at(-1)
    return own?.status_reason ?? "it takes longer than usual; the host is busy"
  } catch (error) {
    if (error instanceof AppError) return undefined
    throw error
  }
}

function nextCommand(name: string, { init, run }: { init: string | undefined; run: boolean }): string {
  if (run) return `shell ${name} main`
  return init === undefined ? `exec ${name} -- uname -a` : `shell ${name} init`
}

async function initScript(given: string): Promise<string> {
  if (!given.startsWith("@")) return given
  const { readInitScript } = await import("../files-to-send.ts")
  return await readInitScript(given.slice(1))
}

async function filesToSend(given: readonly string[], name: string | undefined) {
  const { readFilesToSend } = await import("../files-to-send.ts")
  return await readFilesToSend(given, { sandbox: name ?? "NAME" })
}
