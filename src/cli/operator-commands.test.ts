/** `serve` and `init` hand their options to the daemon's side as given, and directories in full. */

import { expect, test } from "bun:test"
import { resolve } from "node:path"
import { defaultDataDir } from "@bhatti/contract/limits"
import { parseArguments } from "./arguments.ts"
import type { HostCommand } from "./command.ts"
import { init } from "./commands/init.ts"
import { serve } from "./commands/serve.ts"
import type { InitOptions, Operator, ServeOptions } from "./operator.ts"
import { Output } from "./output.ts"

class RecordingOperator implements Operator {
  readonly served: ServeOptions[] = []
  readonly initialised: Omit<InitOptions, "report">[] = []

  async serve(options: ServeOptions): Promise<void> {
    this.served.push(options)
  }
  async init({ report: _, ...options }: InitOptions): Promise<void> {
    this.initialised.push(options)
  }
  async openStore(): Promise<never> {
    throw new Error("these commands do not open the store")
  }
  async warnings(): Promise<never> {
    throw new Error("these commands do not look at the host")
  }
  async backUp(): Promise<never> {
    throw new Error("these commands make no backup")
  }
  async restore(): Promise<never> {
    throw new Error("these commands restore nothing")
  }
  async recover(): Promise<never> {
    throw new Error("these commands recover nothing")
  }
  async preflight(): Promise<never> {
    throw new Error("these commands do not look at the data directory")
  }
  async loadConfig(): Promise<never> {
    throw new Error("these commands do not read the configuration")
  }
}

async function run(
  command: HostCommand,
  argv: readonly string[],
  operator = new RecordingOperator(),
  out = new Output(),
): Promise<RecordingOperator> {
  const { args, rest, options, common } = parseArguments(command, argv)
  const settings = () => Promise.reject(new Error("these commands need no settings"))
  await command.run({
    args,
    rest,
    options: options as never,
    isJson: common.json,
    out,
    operator,
    table: { shown: [], hidden: [] },
    settings,
    given: { url: undefined, token: undefined },
  })
  return operator
}

test("serve passes on only what was given", async () => {
  expect((await run(serve, [])).served).toEqual([{}])
  const argv = ["--config", "/c.yaml", "--data-dir=/d", "--listen", "127.0.0.1:1", "--accel", "tcg"]
  expect((await run(serve, argv)).served).toEqual([
    { configPath: "/c.yaml", dataDir: "/d", listen: "127.0.0.1:1", accel: "tcg" },
  ])
})

test("a directory may be named from here", async () => {
  expect((await run(serve, ["--data-dir", "d"])).served).toEqual([{ dataDir: resolve("d") }])
  expect((await run(init, ["--data-dir", "d", "--cache-dir", "../c"])).initialised).toMatchObject([
    { dataDir: resolve("d"), cacheDir: resolve("../c") },
  ])
})

test("serve refuses an accelerator that does not exist", async () => {
  expect(run(serve, ["--accel", "xen"])).rejects.toMatchObject({ code: "invalid" })
})

test("init has defaults for directories", async () => {
  expect((await run(init, [])).initialised).toEqual([
    {
      dataDir: defaultDataDir,
      cacheDir: "/var/cache/bhatti",
      writeClientConfig: false,
      probe: false,
      imageOnly: false,
    },
  ])
  const argv = [
    "--data-dir",
    "/d",
    "--cache-dir",
    "/c",
    "--write-client-config",
    "--listen",
    "127.0.0.1:1",
    "--probe",
  ]
  expect((await run(init, argv)).initialised).toEqual([
    {
      dataDir: "/d",
      cacheDir: "/c",
      writeClientConfig: true,
      probe: true,
      imageOnly: false,
      listen: "127.0.0.1:1",
    },
  ])
})

test("init that this user may not do names sudo and the way without", async () => {
  class Refusing extends RecordingOperator {
    override init(): Promise<void> {
      return Promise.reject(Object.assign(new Error("operation not permitted"), { code: "EPERM" }))
    }
  }
  expect(run(init, ["--data-dir", "/d"], new Refusing())).rejects.toMatchObject({
    code: "forbidden",
    message: "cannot prepare /d (EPERM)",
    hint: "sudo bhatti init   (or give it a --data-dir and a --cache-dir of your own)",
  })
})

test("init --json prints where everything is", async () => {
  class Heard extends Output {
    lines: string[] = []
    override async result(line: string): Promise<void> {
      this.lines.push(line)
    }
  }
  const out = new Heard()
  await run(init, ["--data-dir", "/d", "--cache-dir", "/c", "--json"], new RecordingOperator(), out)
  expect(out.lines.map((line) => JSON.parse(line))).toEqual([{ data_dir: "/d", cache_dir: "/c" }])
})
