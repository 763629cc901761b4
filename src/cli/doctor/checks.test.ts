/** The doctor's judgement of hosts that are not at hand. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { type Check, connectionChecks, hostChecks } from "./checks.ts"
import type { ConnectionFacts, HostFacts } from "./facts.ts"

const program = { path: "/usr/bin/x", version: "7.2.22" }

const healthy: HostFacts = {
  system: "linux x64",
  isRoot: true,
  kvm: "opens",
  programs: {
    "qemu-system-x86_64": program,
    "qemu-img": program,
    ip: program,
    nft: program,
    dnsmasq: program,
  },
  kernel: {
    release: "6.1.0",
    memfd: true,
    tun: "opens",
    bridge: true,
    forwards: true,
    nftables: true,
    namespaces: true,
    controllers: ["cpuset", "cpu", "io", "memory", "pids"],
  },
  dataDir: {
    path: "/var/lib/bhatti",
    kind: "open",
    mode: 0o700,
    uid: 0,
    freeMib: 50_000,
    files: [{ name: "age.key", mode: 0o600 }],
    kernelAndImage: true,
    findings: [],
    probe: { problem: null, isOfThisBoot: true },
  },
  config: {
    accel: "auto",
    isKvmRequired: false,
    confinement: "full",
    isTls: false,
    listen: "127.0.0.1:8080",
    network: "auto",
    reserveMib: 1024,
    memoryReserveMib: 512,
    uidBase: 700_000,
    hasNameServers: false,
  },
  shares: { others: [], namesTrouble: null },
  memoryAvailableMib: 8000,
  listener: "bhatti",
  yearUtc: 2030,
}

type OpenDataDir = Extract<HostFacts["dataDir"], { kind: "open" }>
const dataDir = healthy.dataDir as OpenDataDir & { path: string }

/** What is not ok about a host that differs from a healthy one. */
function troubles(difference: Partial<HostFacts>): Check[] {
  return hostChecks({ ...healthy, ...difference }).filter(({ status }) => status !== "ok")
}

test("a healthy host has nothing to fix", () => {
  expect(troubles({})).toEqual([])
})

test("every trouble has a status and a way to fix it", () => {
  const { kernel, programs, config } = healthy
  const closed = { path: dataDir.path, kind: "closed" } as const
  const cases: [Partial<HostFacts>, string, Check["status"], string][] = [
    [{ system: "darwin arm64" }, "system", "fail", "Linux on x86-64 only"],
    [{ kvm: "missing" }, "kvm", "warn", "/dev/kvm is missing"],
    [{ kvm: "closed" }, "kvm", "warn", "cannot be opened"],
    [
      { kvm: "missing", config: { ...config, accel: "kvm" } as HostFacts["config"] },
      "kvm",
      "fail",
      "is missing",
    ],
    [
      { kvm: "missing", config: { ...config, isKvmRequired: true } as HostFacts["config"] },
      "kvm",
      "fail",
      "does not serve",
    ],
    [{ kernel: { ...kernel, namespaces: false } }, "confinement", "fail", "refuses namespaces"],
    [
      { config: { ...config, confinement: "reduced" } as HostFacts["config"] },
      "confinement",
      "warn",
      "reduced",
    ],
    [{ config: { ...config, accel: "tcg" } as HostFacts["config"] }, "kvm", "warn", "accel: tcg"],
    [
      { dataDir: { ...dataDir, probe: { problem: "it hung", isOfThisBoot: true } } },
      "kvm",
      "warn",
      "it hung",
    ],
    [
      { programs: { ...programs, "qemu-system-x86_64": undefined } },
      "qemu-system-x86_64",
      "fail",
      "not installed",
    ],
    [
      { programs: { ...programs, "qemu-system-x86_64": { path: "/q", version: "6.9" } } },
      "qemu-system-x86_64",
      "fail",
      "too old",
    ],
    [{ programs: { ...programs, "qemu-img": undefined } }, "qemu-img", "fail", "not installed"],
    [{ programs: { ...programs, nft: undefined } }, "nft", "fail", "not installed"],
    [{ kernel: { ...kernel, memfd: false } }, "kernel", "fail", "no memfd"],
    [{ kernel: { ...kernel, tun: "missing" } }, "network", "fail", "is missing"],
    [{ kernel: { ...kernel, nftables: false } }, "network", "fail", "nft cannot list"],
    [{ kernel: { ...kernel, bridge: false } }, "network", "warn", "bridge"],
    [{ kernel: { ...kernel, controllers: undefined } }, "cgroups", "warn", "not mounted"],
    [{ kernel: { ...kernel, controllers: ["cpu"] } }, "cgroups", "warn", "lacks memory, pids, io"],
    [
      { kernel: { ...kernel, controllers: ["cpu", "memory", "pids"] } },
      "cgroups",
      "warn",
      "lacks io; nothing limits a machine's disk bandwidth",
    ],
    [
      { shares: { others: [{ name: "bob", file: "/etc/subuid" }], namesTrouble: null } },
      "users",
      "warn",
      "bob has user ids of machines too",
    ],
    [
      { shares: { others: [], namesTrouble: "/etc/resolv.conf names no name server" } },
      "names",
      "warn",
      "names no name server",
    ],
    [{ dataDir: { path: "/x", kind: "absent" } }, "data", "fail", "/x is missing"],
    [{ dataDir: { ...dataDir, mode: 0o755 } }, "data", "fail", "is open to others"],
    [{ dataDir: { ...dataDir, uid: 1000 } }, "data", "fail", "is open to others"],
    [
      { dataDir: { ...dataDir, files: [{ name: "age.key", mode: 0o644 }] } },
      "data",
      "fail",
      "age.key is open to others (644)",
    ],
    [
      {
        dataDir: {
          ...dataDir,
          findings: [{ status: "fail", text: "the database is older", fix: "recover" }],
        },
      },
      "data",
      "fail",
      "the database is older",
    ],
    [{ dataDir: { ...dataDir, kernelAndImage: false } }, "data", "fail", "kernel or image is missing"],
    [{ dataDir: { ...dataDir, freeMib: 900 } }, "space", "fail", "no sandbox can be created"],
    [{ dataDir: { ...dataDir, freeMib: 3000 } }, "space", "warn", "3000 MB free"],
    [{ dataDir: closed }, "data", "warn", "is the operator's"],
    [{ memoryAvailableMib: 900 }, "memory", "warn", "900 MB available"],
    [{ memoryAvailableMib: 300 }, "memory", "fail", "300 MB available; 512 MB stay reserved"],
    [
      { config: { problem: "config.yaml: listen: use HOST:PORT", hint: undefined } },
      "config",
      "fail",
      "use HOST:PORT",
    ],
    [{ listener: "nobody" }, "port", "warn", "the daemon does not run"],
    [{ listener: "other" }, "port", "fail", "something else than bhatti"],
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
  expect(troubles({ dataDir: { ...dataDir, probe: { problem: "it hung", isOfThisBoot: false } } })).toEqual(
    [],
  )
})

test("somebody without rights is told to use sudo, not that things are broken", () => {
  const checks = troubles({
    isRoot: false,
    kvm: "closed",
    kernel: { ...healthy.kernel, tun: "closed", nftables: undefined },
    dataDir: { path: dataDir.path, kind: "closed" },
    config: { problem: "cannot read the configuration", hint: undefined },
    listener: "unknown",
  })
  expect(checks.map(({ status, fix }) => [status, fix])).toEqual(
    Array(3).fill(["warn", "sudo bhatti doctor"]),
  )
})

test("a daemon with the user network needs no tools for another, and says what it gives up", () => {
  const config = { ...healthy.config, network: "user" } as HostFacts["config"]
  const kernel = { ...healthy.kernel, tun: "missing" as const }
  const checks = troubles({ config, kernel, programs: { ...healthy.programs, nft: undefined } })
  expect(checks.map(({ area, status }) => `${area} ${status}`)).toEqual(["network warn"])
  expect(checks[0]?.text).toContain("reach nothing")
})

test("a daemon that is not root says what that gives up", () => {
  const checks = troubles({ isRoot: false, dataDir: { ...dataDir, uid: 1000 } })
  expect(checks.map(({ area, status }) => `${area} ${status}`)).toEqual(["confinement warn", "network warn"])
  expect(checks[0]?.text).toContain("not root")
})

const connected: ConnectionFacts = {
  url: "http://localhost:8080",
  token: { source: "BHATTI_TOKEN" },
  ownVersion: "1.0.0",
  daemon: { kind: "answers", version: "1.0.0", warnings: [], clockSkewMs: 100 },
}

test("the connection: reached, refused, another version, another time", () => {
  expect(connectionChecks(connected).map(({ area, status }) => `${area} ${status}`)).toEqual([
    "daemon ok",
    "key ok",
    "version ok",
  ])
  const other = connectionChecks({
    ...connected,
    daemon: { kind: "answers", version: "2.0.0", warnings: ["slow"], clockSkewMs: -60_000 },
  }).filter(({ status }) => status !== "ok")
  expect(other.map(({ area, status, text }) => `${area} ${status} ${text}`)).toEqual([
    "version warn 1.0.0 here, 2.0.0 at the daemon",
    "daemon warn slow",
    "clock warn the daemon's clock is 60 s behind this one",
  ])
  const refused = new AppError("unauthenticated", "the API key is not valid")
  expect(connectionChecks({ ...connected, daemon: { kind: "fails", error: refused } })).toMatchObject([
    { area: "daemon", status: "ok" },
    { area: "key", status: "fail", fix: "bhatti setup" },
  ])
  const gone = new AppError("unavailable", "no bhatti daemon answers", { hint: "start it" })
  expect(connectionChecks({ ...connected, daemon: { kind: "fails", error: gone } })).toEqual([
    { area: "daemon", status: "fail", text: "no bhatti daemon answers", fix: "start it" },
  ])
})
