/** The doctor's judgement of hosts that are not at hand. */

import { expect, test } from "bun:test"
import { Config } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import type { Check } from "./lib/preflight.ts"
import { hostBootId } from "./lib/process-identity.ts"
import { type HostFacts, hostChecks } from "./preflight.ts"

const program = { path: "/usr/bin/x", version: "7.2.22" }
const config = Config.parse({})
const probe = { bootId: hostBootId, circumstances: "", problem: null, ms: 1 }

const machines: HostFacts["machines"] = {
  kvm: "opens",
  probe,
  qemu: program,
  qemuImg: program,
  release: "6.1.0",
  memfd: true,
  namespaces: true,
  controllers: ["cpuset", "cpu", "io", "memory", "pids"],
}
const network: HostFacts["network"] = {
  tun: "opens",
  bridge: true,
  forwards: true,
  ip: program,
  nft: program,
  dnsmasq: program,
  skopeo: program,
  nftables: true,
  namesTrouble: null,
}
const data = {
  mode: 0o700,
  uid: 0,
  daemonUid: 0,
  freeMib: 50_000,
  files: [{ name: "age.key", mode: 0o600 }],
  kernelAndImage: true,
  findings: [],
}
const installed = { version: "7.2.22", name: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)" }
const oldQemu = {
  version: "7.2.19",
  name: "7.2.19 (Debian 1:7.2+dfsg-7+deb12u15)",
  id: "0123456789abcdef",
  mib: 62,
}
const healthy: HostFacts = {
  system: "linux x64",
  isRoot: true,
  dataDir: "/var/lib/bhatti",
  daemonUrl: "http://localhost:8080",
  data,
  config: Config.parse({ disk_reserve_mb: 1024, memory_reserve_mb: 512 }),
  machines,
  qemus: {
    installed,
    kept: [{ ...oldQemu, uses: { running: ["sb_1"], stopped: ["sb_2", "sb_3"], copies: ["snp_1"] } }],
  },
  forkTrial: undefined,
  network,
  others: [],
  memoryAvailableMib: 8000,
  listener: "bhatti",
  yearUtc: 2030,
}

/** Returns the checks that fail on a host that differs from a healthy one. */
function troubles(difference: Partial<HostFacts>): Check[] {
  return hostChecks({ ...healthy, ...difference }).filter(({ status }) => status !== "ok")
}

test("a healthy host has nothing to fix", () => {
  expect(troubles({})).toEqual([])
})

test("a kept QEMU is named with what needs it", () => {
  const about = (uses: Record<"running" | "stopped" | "copies", string[]>, forbidden: string[] = []) =>
    hostChecks({
      ...healthy,
      config: { ...config, forbidden_qemu: forbidden },
      qemus: { installed, kept: [{ ...oldQemu, uses }] },
    })
      .filter(({ area }) => area === "qemu")
      .map(({ status, text }) => `${status}: ${text}`)
  const who = "ok: QEMU 7.2.19 (Debian 1:7.2+dfsg-7+deb12u15), build 0123456789abcdef, 62 MB, is kept for"
  const uses = { running: ["sb_1"], stopped: ["sb_2", "sb_3"], copies: [] }
  expect(about(uses)).toEqual([`${who} 1 running machine, 2 stopped sandboxes`])
  expect(about({ running: [], stopped: [], copies: [] })).toEqual([`${who} nothing, and will be removed`])
  expect(about(uses, ["7.2.19"])).toEqual([
    expect.stringContaining("needed by 1 running machine (sb_1), 2 stopped sandboxes (sb_2, sb_3); what"),
  ])
})

test("the doctor says whether new sandboxes are forked, cloned, or wait in the pool, and why", () => {
  const about = (settings: Partial<Config>, difference: Partial<HostFacts> = {}) =>
    hostChecks({ ...healthy, ...difference, config: { ...config, ...settings } })
      .filter(({ area }) => area === "forks")
      .map(({ status, text }) => `${status}: ${text}`)
  const forkTrial = { works: true, reason: null, build: "QEMU 9.9" }
  expect([
    about({ forks: "auto" }, { forkTrial }),
    about({ forks: "off" }, { forkTrial }),
    about({ forks: "off", pool: 0 }),
    about({ forks: "auto", confinement: "reduced" }),
    about({ forks: "auto" }, { isRoot: false, data: { ...data, daemonUid: 1000 } }),
  ]).toEqual([
    ["ok: new sandboxes are forked from QEMU 9.9, and none waits in a pool"],
    ["ok: off in config.yaml: new sandboxes are cloned, and some wait in the pool"],
    ["ok: off in config.yaml: new sandboxes are cloned"],
    [expect.stringContaining("cloned, and some wait in the pool: machines have no users and namespaces")],
    [expect.stringContaining("ok: new sandboxes are cloned, and some wait in the pool: machines have no")],
  ])
})

test("a forbidden QEMU is named by each of its names, whether it is kept or installed", () => {
  const find = (forbidden: string[]) =>
    troubles({ config: { ...config, memory_reserve_mb: 512, forbidden_qemu: forbidden } }).map(
      ({ status, text }) => `${status}: ${text.slice(0, 20)}`,
    )
  for (const entry of ["1:7.2+dfsg-7+deb12u15", "7.2.19", "0123456789abcdef"])
    expect(find([entry]), entry).toEqual(["warn: QEMU 7.2.19 (Debian "])
  for (const entry of ["7.2.22", "1:7.2+dfsg-7+deb12u18", "1:7.2+dfsg-7+deb12u18+b3"])
    expect(find([entry]), entry).toEqual(["fail: QEMU 7.2.22 (Debian "])
  for (const entry of ["7.2", "1:7.2+dfsg-7+deb12u1", "Debian", "deb12u15", "0123"])
    expect(find([entry]), entry).toEqual([])
})

test("every trouble has a status and a way to fix it", () => {
  const cases: [Partial<HostFacts>, string, Check["status"], string][] = [
    [{ system: "darwin arm64" }, "system", "fail", "Linux on x86-64 only"],
    [{ machines: { ...machines, kvm: "missing" } }, "kvm", "warn", "/dev/kvm is missing"],
    [{ machines: { ...machines, kvm: "closed" } }, "kvm", "warn", "cannot be opened"],
    [
      {
        forkTrial: { works: false, reason: "it lacks vm_start", build: "QEMU 9.9" },
        config: { ...config, forks: "auto" },
      },
      "forks",
      "warn",
      "QEMU 9.9 was not forked: it lacks vm_start",
    ],
    [
      { machines: { ...machines, kvm: "missing" }, config: { ...config, accel: "kvm" } },
      "kvm",
      "fail",
      "is missing",
    ],
    [
      { machines: { ...machines, kvm: "missing" }, config: { ...config, require_kvm: true } },
      "kvm",
      "fail",
      "does not serve",
    ],
    [{ machines: { ...machines, namespaces: false } }, "confinement", "fail", "refuses namespaces"],
    [{ config: { ...config, confinement: "reduced" } }, "confinement", "warn", "reduced"],
    [{ config: { ...config, accel: "tcg" } }, "kvm", "warn", "accel: tcg"],
    [{ machines: { ...machines, probe: { ...probe, problem: "it hung" } } }, "kvm", "warn", "it hung"],
    [{ machines: { ...machines, qemu: undefined } }, "qemu-system-x86_64", "fail", "not installed"],
    [
      { machines: { ...machines, qemu: { path: "/q", version: "6.9" } } },
      "qemu-system-x86_64",
      "fail",
      "too old",
    ],
    [{ machines: { ...machines, qemuImg: undefined } }, "qemu-img", "fail", "not installed"],
    [{ network: { ...network, nft: undefined } }, "nft", "fail", "not installed"],
    [{ machines: { ...machines, memfd: false } }, "kernel", "fail", "no memfd"],
    [{ network: { ...network, tun: "missing" } }, "network", "fail", "is missing"],
    [{ network: { ...network, nftables: false } }, "network", "fail", "nft cannot list"],
    [{ network: { ...network, bridge: false } }, "network", "warn", "bridge"],
    [{ machines: { ...machines, controllers: undefined } }, "cgroups", "warn", "not mounted"],
    [{ machines: { ...machines, controllers: ["cpu"] } }, "cgroups", "warn", "lacks memory, pids, io"],
    [
      { machines: { ...machines, controllers: ["cpu", "memory", "pids"] } },
      "cgroups",
      "warn",
      "lacks io; nothing limits a machine's disk bandwidth",
    ],
    [{ others: [{ name: "bob", file: "/etc/subuid" }] }, "users", "warn", "bob has user ids of machines too"],
    [
      { network: { ...network, namesTrouble: "/etc/resolv.conf names no name server" } },
      "names",
      "warn",
      "names no name server",
    ],
    [{ dataDir: "/x", data: "absent" }, "data", "fail", "/x is missing"],
    [{ data: { ...data, mode: 0o755 } }, "data", "fail", "is open to others"],
    [{ data: { ...data, uid: 1000 } }, "data", "fail", "is open to others"],
    [
      { data: { ...data, files: [{ name: "age.key", mode: 0o644 }] } },
      "data",
      "fail",
      "age.key is open to others (644)",
    ],
    [
      {
        data: {
          ...data,
          findings: [{ area: "data", status: "fail", text: "the database is older", fix: "recover" }],
        },
      },
      "data",
      "fail",
      "the database is older",
    ],
    [{ data: { ...data, kernelAndImage: false } }, "data", "fail", "kernel or image is missing"],
    [{ data: { ...data, freeMib: 900 } }, "space", "fail", "no sandbox can be created"],
    [{ data: { ...data, freeMib: 3000 } }, "space", "warn", "3000 MB free"],
    [{ data: "closed" }, "data", "warn", "is the operator's"],
    [{ memoryAvailableMib: 900 }, "memory", "warn", "900 MB available"],
    [{ memoryAvailableMib: 300 }, "memory", "fail", "300 MB available; 512 MB stay reserved"],
    [
      { config: new AppError("invalid", "config.yaml: listen: use HOST:PORT") },
      "config",
      "fail",
      "use HOST:PORT",
    ],
    [{ listener: "nobody" }, "port", "warn", "the daemon does not run"],
    [{ listener: "other" }, "port", "fail", "another program uses"],
    [{ yearUtc: 1970 }, "clock", "fail", "1970"],
  ]
  for (const [difference, area, status, text] of cases) {
    const [trouble, ...others] = troubles(difference)
    expect(trouble).toMatchObject({ area, status })
    expect(trouble?.text).toContain(text)
    expect(trouble?.fix ?? "").not.toBe("")
    expect(others).toEqual([])
  }
})

test("a probe of an earlier boot of the host says nothing", () => {
  const earlier = { ...probe, bootId: "earlier", problem: "it hung" }
  expect(troubles({ machines: { ...machines, probe: earlier } })).toEqual([])
})

test("somebody without rights is told to use sudo, not that things are broken", () => {
  const checks = troubles({
    isRoot: false,
    machines: { ...machines, kvm: "closed" },
    network: { ...network, tun: "closed", nftables: undefined },
    data: "closed",
    config: new AppError("invalid", "cannot read the configuration"),
    listener: "unknown",
  })
  expect(checks.map(({ status, fix }) => [status, fix])).toEqual(
    Array(3).fill(["warn", "sudo bhatti doctor"]),
  )
})

test("a daemon with the user network needs no tools for another, and says what it gives up", () => {
  const checks = troubles({
    config: { ...config, network: "user" },
    network: { ...network, tun: "missing", nft: undefined },
  })
  expect(checks.map(({ area, status }) => `${area} ${status}`)).toEqual(["network warn"])
  expect(checks[0]?.text).toContain("reach nothing")
})

test("a daemon that is not root says what that gives up", () => {
  const checks = troubles({ isRoot: false, data: { ...data, uid: 1000, daemonUid: 1000 } })
  expect(checks.map(({ area, status }) => `${area} ${status}`)).toEqual(["confinement warn", "network warn"])
  expect(checks[0]?.text).toContain("not root")
})

test("root that looks at a user's daemon judges that daemon, and does not take its directory away", () => {
  const owned = { ...data, uid: 1000, daemonUid: 1000 }
  const found = troubles({ data: owned })
  expect(found.filter(({ status }) => status === "fail")).toEqual([])
  expect(found).toContainEqual({
    area: "data",
    status: "warn",
    text: "/var/lib/bhatti is of the daemon of user 1000; root sees this host with other rights than it has",
    fix: "sudo -u '#1000' bhatti doctor --data-dir /var/lib/bhatti",
  })
  expect(found.map(({ text }) => text)).toContainEqual(
    expect.stringContaining("network: user: sandboxes reach nothing"),
  )
  expect(troubles({ data: { ...owned, mode: 0o755 } })).toContainEqual(
    expect.objectContaining({ status: "fail", fix: "sudo chmod 700 /var/lib/bhatti" }),
  )
  // A daemon of root in a user's directory: that user may change what it trusts.
  expect(troubles({ data: { ...owned, daemonUid: 0 } })).toMatchObject([
    { status: "fail", fix: expect.stringContaining("sudo chown root") },
  ])
})

test("another daemon than that of the data directory is told", () => {
  const told = (daemonUrl: string) =>
    hostChecks({ ...healthy, daemonUrl }).filter(({ text }) => text.includes("another one"))
  expect(told("http://127.0.0.1:18080")).toMatchObject([
    {
      status: "warn",
      text: expect.stringContaining("/var/lib/bhatti"),
      fix: expect.stringContaining("--data-dir"),
    },
  ])
  for (const same of ["http://localhost:8080", "http://127.0.0.1:8080", "https://localhost", "http://host:9"])
    expect(told(same)).toEqual([])
})
