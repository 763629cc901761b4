/** Checks what the routed network needs of the host: devices, kernel modules, programs and name servers. */

import { existsSync } from "node:fs"
import { readNameServers } from "../lib/host-name-servers.ts"
import { readIfReadable } from "../lib/missing-files.ts"
import {
  type Check,
  checkProgram,
  deviceState,
  fail,
  findProgram,
  ok,
  succeeds,
  warn,
} from "../lib/preflight.ts"

export type NetworkFacts = ReturnType<typeof lookAtNetwork>

export function lookAtNetwork({ isRoot }: { isRoot: boolean }) {
  const nft = findProgram("nft")
  return {
    tun: deviceState("/dev/net/tun"),
    // Loaded, built in, or available.
    bridge: existsSync("/sys/module/bridge") || succeeds("modprobe", "--dry-run", "--quiet", "bridge"),
    forwards: readIfReadable("/proc/sys/net/ipv4/ip_forward")?.trim() === "1",
    ip: findProgram("ip", "-V"),
    nft,
    dnsmasq: findProgram("dnsmasq"),
    skopeo: findProgram("skopeo"),
    /** Undefined if only root can tell. */
    nftables: nft !== undefined && isRoot ? succeeds("nft", "list", "tables") : undefined,
    /** Why sandboxes cannot resolve names of the internet; null if they can. */
    namesTrouble: readNameServers().trouble,
  }
}

export function networkChecks(facts: NetworkFacts, { isRoot }: { isRoot: boolean }): Check[] {
  const area = "network"
  return [
    checkTun(facts, isRoot),
    facts.bridge
      ? ok(area, "the interface for sandboxes' gateway can be created")
      : warn(area, "the kernel's bridge module was not found", "sudo modprobe bridge"),
    ok(
      area,
      facts.forwards
        ? "the host forwards packets"
        : "the host does not forward packets; the daemon switches that on when it starts",
    ),
    checkProgram("ip", facts.ip, "iproute2"),
    checkProgram("nft", facts.nft, "nftables"),
    checkProgram("dnsmasq", facts.dnsmasq, "dnsmasq-base"),
    facts.skopeo === undefined
      ? warn("skopeo", "is not installed, so users cannot pull images", "sudo apt-get install skopeo")
      : ok("skopeo", `${facts.skopeo.version ?? "some version"} at ${facts.skopeo.path}`),
    ...(facts.nftables === false
      ? [fail(area, "nft cannot list its tables", "sudo modprobe nf_tables")]
      : []),
  ]
}

export function checkNames(trouble: string | null): Check {
  return trouble === null
    ? ok("names", "the host has name servers for sandboxes")
    : warn(
        "names",
        `sandboxes cannot resolve internet names: ${trouble}`,
        "correct that file, or set dns_upstreams in config.yaml",
      )
}

function checkTun({ tun }: NetworkFacts, isRoot: boolean): Check {
  if (tun === "opens") return ok("network", "/dev/net/tun opens")
  if (tun === "closed" && !isRoot)
    return warn("network", "/dev/net/tun is not open to you; the daemon may open it", "sudo bhatti doctor")
  const trouble = tun === "missing" ? "is missing" : "cannot be opened"
  return fail("network", `/dev/net/tun ${trouble}`, "sudo modprobe tun")
}
