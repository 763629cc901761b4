/** A link is switched on by netlink exactly as `ip` would, each in a network namespace of its own; as root. */

import { expect, test } from "bun:test"
import { join } from "node:path"
import { linkUpBatch } from "./links.ts"

const isRoot = process.getuid?.() === 0
const link = { tap: "tap0", mac: "02:aa:bb:cc:dd:ee", address: "10.9.8.7" }
const gateway = "10.9.0.1"
const anchor = `ip link add anchor0 type bridge; ip addr add ${gateway}/16 dev anchor0; ip link set anchor0 up; ip tuntap add tap0 mode tap`
const look =
  "ip -d link show tap0; ip neigh show dev tap0; ip route show dev tap0; ip route show table all dev tap0"

/** Returns what `ip` shows, without numbers that differ by chance. */
function shownAfter(command: string): string {
  const script = `${anchor}; ${command} && ${command} && { ${look}; }`
  const { stdout, stderr, exitCode } = Bun.spawnSync(["unshare", "--net", "sh", "-c", script])
  if (exitCode !== 0) throw new Error(stderr.toString())
  return stdout.toString()
}

test.skipIf(!isRoot)(
  "netlink leaves a link, a neighbour and a route like ip -batch, also when it is repeated",
  () => {
    const byProgram = shownAfter(`printf '%s' '${linkUpBatch(link, gateway)}' | ip -batch -`)
    const module = join(import.meta.dir, "links.ts")
    const code = `import { switchLinkOn } from ${JSON.stringify(module)}; switchLinkOn(${JSON.stringify(link)}, ${JSON.stringify(gateway)})`
    expect(shownAfter(`'${process.execPath}' -e '${code}'`)).toBe(byProgram)
    expect(byProgram).toContain("10.9.8.7")
  },
)

test.skipIf(!isRoot)("a link that is missing is an error", () => {
  const module = join(import.meta.dir, "links.ts")
  const code = `import { switchLinkOn } from ${JSON.stringify(module)}; switchLinkOn(${JSON.stringify({ ...link, tap: "none0" })}, ${JSON.stringify(gateway)})`
  const { exitCode, stderr } = Bun.spawnSync(["unshare", "--net", process.execPath, "-e", code])
  expect(exitCode).not.toBe(0)
  expect(stderr.toString()).toContain("there is no interface none0")
})
