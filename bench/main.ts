/**
 * `bun run bench` measures what bhatti costs in time, memory and disk, next to podman with the same files, on this
 * host. It uses an installation of its own and leaves nothing behind but podman's imported image in the cache.
 */

import { closeSync, mkdirSync, openSync } from "node:fs"
import { join, resolve } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { readImage } from "../src/image/artifacts.ts"
import { tryLock } from "../src/lib/posix.ts"
import { Bhatti } from "./bhatti.ts"
import type { Bench } from "./group.ts"
import { checkedGroups, groups } from "./groups/list.ts"
import { hostFacts } from "./host.ts"
import { type BenchOptions, parseOptions, usage } from "./options.ts"
import { isHybridControlGroups, Podman, rerunWithoutUnifiedControlGroups } from "./podman.ts"
import { markdownTable, number, rowLine, toJson } from "./report.ts"
import { type Row, verdicts } from "./row.ts"

const insideMarker = "BHATTI_BENCH_INSIDE"
const cacheDir = process.env["BHATTI_TEST_CACHE"] ?? "/var/cache/bhatti"

/** Shown when a measurement fails. */
const daemonLogLines = 20

async function main(): Promise<number> {
  const names = groups.map(({ name }) => name)
  let options: BenchOptions | "help"
  try {
    options = parseOptions(process.argv.slice(2), names, checkedGroups)
  } catch (error) {
    console.error(`error: ${error instanceof Error ? error.message : String(error)}\n\n${usage(names)}`)
    return 2
  }
  if (options === "help") {
    console.log(usage(names))
    return 0
  }
  const isInside = process.env[insideMarker] !== undefined
  const needsNamespace =
    options.withPodman &&
    !isInside &&
    process.getuid?.() === 0 &&
    Bun.which("podman") !== null &&
    (await isHybridControlGroups())
  if (needsNamespace) return rerunWithoutUnifiedControlGroups(insideMarker)
  using lock = lockHost()
  if (!lock) {
    console.error("error: another benchmark is running, and two at once measure each other")
    return 1
  }
  return await measure(options)
}

/** The kernel gives it up when the process ends, however it ends. */
function lockHost(): Disposable | undefined {
  const directory = join(cacheDir, "bench")
  mkdirSync(directory, { recursive: true })
  const fd = openSync(join(directory, "lock"), "a")
  if (tryLock(fd)) return { [Symbol.dispose]: () => closeSync(fd) }
  closeSync(fd)
  return undefined
}

async function measure(options: BenchOptions): Promise<number> {
  const host = hostFacts()
  progress("preparing an installation")
  await using bhatti = await Bhatti.start({
    binary: options.binary === undefined ? undefined : resolve(options.binary),
  })
  const image = await readImage(bhatti.installation.dataDir, limits.imageDefault)
  await using peer = options.withPodman
    ? await preparePodman(image)
    : { podman: undefined, note: "left out", async [Symbol.asyncDispose]() {} }
  const { reply: daemon } = await bhatti.api("GET", "/version")
  const { version, accelerator, accelerator_reason } = daemon as Record<string, string>
  const { rounds, warmUps, budgetMs } = options
  const header = {
    bhatti: `${version}, ${accelerator} (${accelerator_reason})`,
    cpu: host.cpu,
    memory: host.memory,
    system: host.system,
    qemu: host.qemu,
    podman: peer.note,
    "load before": number(host.load),
    method: `${rounds} rounds after ${warmUps} to warm up, in turns, at most ${budgetMs / 1000} s per group; page cache warm`,
  }
  for (const [name, value] of Object.entries(header)) console.log(`${name}: ${value}`)

  const bench: Bench = { bhatti, podman: peer.podman, rounds: { rounds, warmUps, budgetMs } }
  const results: { group: string; rows: Row[] }[] = []
  for (const group of groups) {
    if (options.only.length > 0 && !options.only.includes(group.name)) continue
    progress(`measuring ${group.name}: ${group.summary}`)
    try {
      await bhatti.configure(group.settings)
      let rows = await group.measure(bench)
      if (options.check && missedIn(rows).length > 0) {
        progress("a ratio was missed; measuring once more, since the host may have been busy")
        rows = await group.measure(bench)
      }
      results.push({ group: group.name, rows })
      for (const row of rows) console.error(`  ${rowLine(row)}`)
    } catch (error) {
      console.error(bhatti.installation.daemonLog().split("\n").slice(-daemonLogLines).join("\n"))
      throw error
    }
  }

  const rows = results.flatMap((result) => result.rows)
  console.log(`\n${markdownTable(rows)}`)
  const leftovers = [...(await bhatti.leftovers()), ...((await peer.podman?.leftovers()) ?? [])]
  if (leftovers.length > 0) console.log(`\nleft behind: ${leftovers.join(", ")}`)
  if (options.jsonPath !== undefined) {
    const tables = results.map((result) => ({ group: result.group, rows: result.rows.map(toJson) }))
    await Bun.write(options.jsonPath, `${JSON.stringify({ header, results: tables, leftovers }, null, 2)}\n`)
  }
  return leftovers.length > 0 || (options.check && missedIn(rows).length > 0) ? 1 : 0
}

/** Rows whose ratio is not what was promised. */
function missedIn(rows: Row[]): Row[] {
  return rows.filter((row) => [verdicts(row).ratio, verdicts(row).p95Ratio].includes("missed"))
}

async function preparePodman(image: {
  name: string
  hash: string
  file: string
}): Promise<AsyncDisposable & { podman: Podman | undefined; note: string }> {
  const prepared = await Podman.prepare({ cacheDir, image, report: progress })
  if (prepared instanceof Podman) {
    const isInside = process.env[insideMarker] !== undefined
    const note = `${prepared.description}${isInside ? ", in a mount namespace without the unified control groups" : ""}`
    return { podman: prepared, note, [Symbol.asyncDispose]: () => prepared[Symbol.asyncDispose]() }
  }
  return {
    podman: undefined,
    note: `no comparison: ${prepared.unusable}`,
    async [Symbol.asyncDispose]() {},
  }
}

/** Results go to standard output, this does not. */
function progress(line: string): void {
  console.error(`${line} ...`)
}

process.exitCode = await main()
