/** Reading the host's resolv.conf, whatever is in its place. */

import { afterAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { parseNameServers, readNameServers } from "./host-name-servers.ts"

const accepts = (address: string) => !address.startsWith("10.209.")
const home = mkdtempSync("/tmp/bhatti-test-")
afterAll(() => rmSync(home, { recursive: true, force: true }))

test.each([
  ["nameserver 192.0.2.1\n", ["192.0.2.1"]],
  [
    "# nameserver 192.0.2.9\n;nameserver 192.0.2.9\n\t nameserver \t192.0.2.1  # one\r\nnameserver 192.0.2.2;two",
    ["192.0.2.1", "192.0.2.2"],
  ],
  [
    "search corp.example.com\ndomain example.com\noptions rotate ndots:5\nnameserver 127.0.0.53",
    ["127.0.0.53"],
  ],
  [
    "nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver ::1\n",
    ["2001:db8::1", "fe80::1%eth0", "::1"],
  ],
  [
    "nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4",
    ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
  ],
  [
    "nameserver example.com\nnameserver 127.1\nnameserver 192.0.2.1#53\nnameserver 192.0.2.2",
    ["192.0.2.1", "192.0.2.2"],
  ],
  ["nameserver 10.209.0.1\nnameserver 10.209.64.3\nnameserver 192.0.2.2", ["192.0.2.2"]],
])("%j names %j", (text, servers) => {
  expect(parseNameServers(text, accepts)).toEqual({ servers, trouble: null })
})

test.each([
  ["", "names no name server"],
  ["search example.com\n", "names no name server"],
  ["NAMESERVER 192.0.2.1\nnameserver192.0.2.1\n\0\0", "names no name server"],
  [
    "nameserver fe80::1%eth0/../x\nnameserver 10.209.64.3\nnameserver /#/\n",
    "names no name server that can be asked",
  ],
])("%j: %s", (text, trouble) => {
  expect(parseNameServers(text, accepts)).toEqual({ servers: [], trouble })
})

test("no text leads to a server that is more than an address", () => {
  const line = fc
    .tuple(fc.constantFrom("nameserver ", "nameserver\t", " nameserver  ", ""), fc.string())
    .map(([word, rest]) => word + rest)
  fc.assert(
    fc.property(fc.array(line), (lines) => {
      for (const server of parseNameServers(lines.join("\n")).servers)
        expect(server).toMatch(/^[0-9a-fA-F:.]+(%[A-Za-z0-9_.-]{1,15})?$/)
    }),
  )
})

test("anything but a file, or no file, is trouble that is told and holds nothing up", () => {
  const make: Record<string, (path: string) => void> = {
    ENOENT: () => {},
    "no file": (path) => mkdirSync(path),
    ELOOP: (path) => symlinkSync(path, path),
  }
  for (const [code, make_] of Object.entries(make)) {
    const path = join(home, code.replace(" ", "-"))
    make_(path)
    expect(readNameServers({ path: path })).toEqual({
      servers: [],
      trouble: `${path} cannot be read (${code})`,
    })
  }
  const dangling = join(home, "dangling")
  symlinkSync(join(home, "nothing"), dangling)
  expect(readNameServers({ path: dangling }).trouble).toContain("ENOENT")
  const pipe = join(home, "pipe")
  Bun.spawnSync(["mkfifo", pipe])
  expect(readNameServers({ path: pipe }).trouble).toContain("no file")
  expect(readNameServers({ path: "/dev/zero" }).trouble).toContain("no file")
  const large = join(home, "large")
  writeFileSync(large, `nameserver 192.0.2.1\n${"# nothing\n".repeat(1 << 20)}`)
  expect(readNameServers({ path: large })).toEqual({ servers: ["192.0.2.1"], trouble: null })
})
