/**
 * Makes `docs/session.svg`: the README's first example, typed into a real terminal (tmux) against a daemon and machines
 * of its own, and the screen that results, as text. Needs root and what `test.sh` installs:
 *
 *     bun run build && sudo -E bun run scripts/recording.ts
 */

import { chmodSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { binary, type Installation, install, until } from "../test/support/installation.ts"
import { Tmux } from "../test/support/tmux.ts"

const root = join(import.meta.dir, "..")
const columns = 90
const commandDeadlineMs = 60_000
/** A person reads what a command printed; meanwhile the server in the sandbox starts. */
const readingMs = 2000
const metricsToken = "read-by-the-recording"

/** The commands of the README's first block of shell lines, without their comments. */
export function commandsOf(readme: string): string[] {
  const block = /```sh\n(.*?)```/s.exec(readme)?.[1] ?? ""
  return block
    .split("\n")
    .map((line) => line.replace(/\s+# .*$/, ""))
    .filter((line) => line !== "")
}

/** Types each command when the one before it has ended, and returns the screen's lines. */
async function record(commands: string[]): Promise<string[]> {
  await using installation = await install({ pool: 2, config: `metrics_token: ${metricsToken}` })
  await fillPool(installation)
  const programs = mkdtempSync(join(tmpdir(), "recording-"))
  try {
    chmodSync(programs, 0o755)
    symlinkSync(binary, join(programs, "bhatti"))
    await using terminal = await Tmux.open({
      cols: columns,
      rows: 60,
      env: {
        PATH: `${programs}:${process.env["PATH"]}`,
        BHATTI_URL: installation.url,
        BHATTI_TOKEN: installation.key,
      },
    })
    await terminal.run("PS1='$ '; clear")
    for (let ended = 0; ; ended++) {
      await until(`prompt ${ended + 1}`, async () => isAtPrompt(await linesOf(terminal), ended + 1), {
        deadlineMs: commandDeadlineMs,
      })
      const command = commands[ended]
      if (command === undefined) return (await linesOf(terminal)).slice(0, -1)
      await Bun.sleep(readingMs)
      await terminal.run(command)
    }
  } finally {
    rmSync(programs, { recursive: true, force: true })
  }
}

/** The daemon keeps as many machines ready as were asked for lately, so one has to be asked for. */
async function fillPool(installation: Installation): Promise<void> {
  await installation.bhatti(["create", "first"])
  await installation.bhatti(["destroy", "-y", "first"])
  await until("the pool is full", async () => {
    const headers = { authorization: `Bearer ${metricsToken}` }
    const metrics = await (await fetch(`${installation.url}/metrics`, { headers })).text()
    return /^bhatti_pool_ready 2$/m.test(metrics)
  })
}

async function linesOf(terminal: Tmux): Promise<string[]> {
  return (await terminal.screen()).trimEnd().split("\n")
}

function isAtPrompt(lines: string[], promptsCount: number): boolean {
  return (
    lines.at(-1)?.trimEnd() === "$" && lines.filter((line) => /^\$( |$)/.test(line)).length === promptsCount
  )
}

/**
 * Each row is text at a fixed place. The colours bring their own background, so that the page's may be light or dark.
 */
export function drawScreen(lines: string[]): string {
  const [cell, row, margin] = [8.4, 20, 20]
  const width = Math.round(columns * cell + 2 * margin)
  const height = lines.length * row + 2 * margin
  const rows = lines.map((line, index) => {
    const place = `x="${margin}" y="${margin + index * row + 15}"`
    const typed = /^\$ (.*)$/.exec(line)?.[1]
    if (typed === undefined) return `<text ${place}>${escapeXml(line)}</text>`
    return `<text ${place}><tspan class="prompt">$ </tspan><tspan class="typed">${escapeXml(typed)}</tspan></text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="A session in a terminal">
<style>
text { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #c9d1d9; white-space: pre }
.prompt { fill: #7ee787 }
.typed { fill: #ffffff; font-weight: bold }
</style>
<rect x="1" y="1" width="${width - 2}" height="${height - 2}" rx="8" fill="#161b22" stroke="#6e7681"/>
${rows.join("\n")}
</svg>
`
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
}

if (import.meta.main) {
  const commands = commandsOf(await Bun.file(join(root, "README.md")).text())
  const lines = await record(commands)
  await Bun.write(join(root, "docs/session.svg"), drawScreen(lines))
  console.log(lines.join("\n"))
}
