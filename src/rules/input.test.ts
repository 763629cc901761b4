/** The rules of input say the same as the schemas of the API. */

import { expect, test } from "bun:test"
import { Exec, ExecStart } from "@bhatti/contract/exec"
import { GuestPath } from "@bhatti/contract/file"
import { limits, reservedAliases } from "@bhatti/contract/limits"
import { Publish } from "@bhatti/contract/publish"
import { CreateSandbox } from "@bhatti/contract/sandbox"
import { SetSecret } from "@bhatti/contract/secret"
import { Checkpoint } from "@bhatti/contract/snapshot"
import fc from "fast-check"
import {
  type ChosenCommand,
  type ChosenInput,
  checkCommand,
  checkGuestPath,
  checkInput,
  checkPublished,
  checkSecret,
  checkSnapshotName,
} from "./input.ts"

const odd = fc.constantFrom(
  "",
  "a",
  "Z9",
  "-a",
  "a-",
  "a b",
  "\0",
  "\n",
  "ä",
  "bhatti.sh/a",
  "x/y",
  "sb_0123456789abcdef",
)
const text = fc.oneof(odd, fc.string({ maxLength: 80 }), fc.stringMatching(/^[a-zA-Z0-9._-]{0,70}$/))
const around = (...edges: number[]) =>
  fc.constantFrom(...edges.flatMap((edge) => [edge - 1, edge, edge + 1, edge + 0.5]))
const long = (max: number) => fc.constantFrom(max - 1, max, max + 1).map((length) => "x".repeat(length))
const maybe = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined })

function accepts(check: () => void): boolean {
  try {
    check()
    return true
  } catch (error) {
    expect(error).toMatchObject({ code: "invalid" })
    return false
  }
}

test("core and API refuse the same input for a sandbox", () => {
  const fields: { [Field in keyof ChosenInput]?: [wire: string, fc.Arbitrary<unknown>] } = {
    name: ["name", text],
    image: ["image", text],
    cpus: ["cpus", around(1, limits.cpusMax)],
    memoryMib: ["memory_mb", around(limits.memoryMibMin, limits.memoryMibMax)],
    diskMib: ["disk_size_mb", around(limits.diskMibDefault, limits.diskMibMax)],
    warmAfterSec: ["warm_after", around(0, limits.thermalSecMax)],
    coldAfterSec: ["cold_after", around(0, limits.thermalSecMax)],
    description: ["description", fc.oneof(text, long(limits.descriptionMax))],
    init: ["init", fc.oneof(text, long(limits.initScriptBytesMax))],
    env: ["env", fc.dictionary(text, fc.oneof(text, long(limits.envValueMax)), { maxKeys: 3 })],
    labels: ["labels", fc.dictionary(text, fc.oneof(text, long(256)), { maxKeys: limits.labelsMax + 1 })],
  }
  for (const [field, [wire, values]] of Object.entries(fields) as [
    string,
    [string, fc.Arbitrary<unknown>],
  ][]) {
    fc.assert(
      fc.property(values, (value) => {
        const bySchema = CreateSandbox.safeParse({ [wire]: value }).success
        expect(accepts(() => checkInput({ [field]: value }))).toBe(bySchema)
      }),
    )
  }
})

test("core and API refuse the same aliases, ports, secrets and names of snapshots", () => {
  const alias = maybe(fc.oneof(text, fc.constantFrom(...reservedAliases), long(63)))
  fc.assert(
    fc.property(around(1, limits.portMax), alias, (port, name) => {
      const input = { port, ...(name !== undefined && { alias: name }) }
      expect(accepts(() => checkPublished(input))).toBe(Publish.safeParse(input).success)
    }),
  )
  fc.assert(
    fc.property(text, fc.oneof(text, long(limits.secretBytesMax)), (name, value) => {
      expect(accepts(() => checkSecret({ name, value }))).toBe(SetSecret.safeParse({ name, value }).success)
    }),
  )
  fc.assert(
    fc.property(text, (name) => {
      expect(accepts(() => checkSnapshotName(name))).toBe(Checkpoint.safeParse({ name }).success)
    }),
  )
})

test("core and API refuse the same command, terminal and path", () => {
  const terminal = fc.record({
    rows: around(1, limits.terminalSideMax),
    cols: around(1, limits.terminalSideMax),
    term: maybe(fc.oneof(text, long(limits.terminalNameMax))),
  })
  const many = (count: number) => Array.from({ length: count }, () => "a")
  const argv = fc.oneof(
    fc.array(fc.oneof(text, long(limits.execRequestBytesMax)), { maxLength: 3 }),
    fc.constantFrom(many(limits.execArgsMax), many(limits.execArgsMax + 1)),
  )
  const command = fc.record({
    argv,
    env: fc.dictionary(text, text, { maxKeys: 2 }),
    cwd: maybe(fc.oneof(text, long(limits.guestPathMax))),
    user: maybe(fc.oneof(text, long(32))),
    timeoutSec: maybe(around(0, limits.execTimeoutSecMax)),
  })
  fc.assert(
    fc.property(command, maybe(terminal), (chosen, tty) => {
      const { argv: cmd, timeoutSec: timeout_sec, ...rest } = chosen
      const isTaken = Exec.safeParse({ ...rest, cmd, timeout_sec }).success
      expect(accepts(() => checkCommand(chosen))).toBe(isTaken)
      const start = ExecStart.safeParse({ cmd: ["true"], tty })
      expect(accepts(() => checkCommand({ argv: ["true"], tty } as ChosenCommand))).toBe(start.success)
    }),
  )
  fc.assert(
    fc.property(fc.oneof(text, long(limits.guestPathMax)), (path) => {
      expect(accepts(() => checkGuestPath(path))).toBe(GuestPath.safeParse(path).success)
    }),
  )
})
