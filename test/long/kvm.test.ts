/**
 * The product under a real KVM on any host: in a machine whose emulated processor has SVM, Debian's own `kvm_amd` runs,
 * and under it our tests. Takes 20 to 40 minutes, so only when it is asked for: `BHATTI_TEST_LONG=1 bun test
 * test/long/kvm.test.ts`.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { cacheDir } from "../support/installation.ts"
import { buildOtherVersion } from "../support/other-version.ts"
import {
  bootOuterMachine,
  type OuterMachine,
  outerCheckout,
  outerDirectory,
} from "../support/outer-machine.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
/** Inside everything takes about this many times as long. */
const patience = 10
const partDeadlineMs = 3_000_000

describe.skipIf(!isAsked)("in a machine with KVM", () => {
  let outer: OuterMachine
  beforeAll(async () => {
    const other = await buildOtherVersion("9.9.9-other")
    try {
      outer = await bootOuterMachine({ "other-bhatti": other.binary })
    } finally {
      other.remove()
    }
  }, 1_500_000)
  afterAll(async () => {
    await outer?.[Symbol.asyncDispose]()
  }, 60_000)

  test.each([
    [
      "the main job, stop and wake, copies, daemons, two processors, and what is told of KVM",
      "test/long/under-kvm.test.ts",
      "",
      "",
    ],
    ["a guest that counts", "src/machine/kvm-device.test.ts", "", ""],
    ["the confinement of a program in QEMU's place", "src/machine/jail.test.ts", "", ""],
    ["the confinement of machines", "test/e2e/confine.vm.test.ts", "a machine's QEMU|software emulation", ""],
    // In software emulation there too: the machine has control groups of version 2, which this host may lack.
    [
      "forked machines in control groups",
      "test/e2e/forked-confinement.vm.test.ts",
      "control group|rights of a cloned one",
      "accel: tcg",
    ],
  ])(
    "%s",
    async (_what, file, names, config) => {
      const environment = {
        PATH: `${outerCheckout}/node_modules/.bin:$PATH`,
        BHATTI_TEST_CACHE: cacheDir,
        BHATTI_TEST_PATIENCE: `${patience}`,
        BHATTI_TEST_CONFIG: config || "kvm_probe_seconds: 60",
        BHATTI_UNDER_KVM: "1",
        BHATTI_OTHER_BINARY: join(outerDirectory, "other-bhatti"),
      }
      const exports = Object.entries(environment).map(([name, value]) => `export ${name}="${value}"`)
      const only = names === "" ? "" : `-t "${names}"`
      const lines: string[] = []
      const status = await outer.run(
        `cd ${outerCheckout}; ${exports.join("; ")}; bun test ${file} ${only} --timeout ${partDeadlineMs}`,
        {
          deadlineMs: partDeadlineMs,
          onLine: (line) => {
            lines.push(line)
            if (/^(\(|Ran | \d+ |error)/.test(line)) console.log(`  ${line}`)
          },
        },
      )
      expect([
        status,
        lines.filter((line) => line.startsWith("(pass)")).length > 0,
        status === 0 ? "" : lines.join("\n"),
      ]).toEqual([0, true, ""])
    },
    partDeadlineMs,
  )
})
