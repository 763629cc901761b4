/** Images whose entry point is an init: Debian's systemd in an image of its own, and busybox's init. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { chmod } from "node:fs/promises"
import { join } from "node:path"
import { installSystemd } from "../support/init-image.ts"
import { binary, cacheDir, type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  await installSystemd(own.dataDir, { cacheDir, agentPath: join(binary, "../lohar") })
}, 1_200_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function run(...args: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await own.bhatti(args, { deadlineMs: 300_000 })
  if (exitCode !== 0) throw new Error(stderr)
  return stdout.trim()
}
const sh = (sandbox: string, script: string) => run("exec", sandbox, "--", "sh", "-c", script)
const why = async (sandbox: string) => JSON.parse(await run("why", sandbox, "--json"))
const booted = (sandbox: string) =>
  sh(
    sandbox,
    "until sudo systemctl is-system-running --wait 2>/dev/null | grep -xE 'running|degraded'; do sleep 0.2; done",
  )

/** A unit that writes down that it was stopped in good order. */
const unit = `[Service]
ExecStart=/bin/sleep 10000
ExecStop=/bin/sh -c 'echo in order > /workspace/stopped'
[Install]
WantedBy=multi-user.target
`

test("systemd runs as the first process it sees, and commands beside it", async () => {
  await run("create", "--name", "dev", "--image", "systemd")
  expect(await booted("dev")).toBe("running")
  expect(await sh("dev", "cat /proc/1/comm; systemd-detect-virt; systemctl is-active dbus")).toBe(
    "systemd\ncontainer-other\nactive",
  )
  // systemd can take over a program that the agent has started, and give it a control group.
  expect(await sh("dev", "sudo systemd-run --quiet --scope --unit=mine cat /proc/self/cgroup")).toBe(
    "0::/system.slice/mine.scope",
  )
  expect(await run("logs", "dev", "init-system")).toContain("Reached target")
  const shown = await sh("dev", "echo $$; ps -o pid= -C sleep; exec sleep 0")
  expect(Number(shown.split("\n")[0])).toBeLessThan(1000)
  // Files and mounts are the same on both sides.
  await sh(
    "dev",
    "sudo mkdir /mnt/own; sudo mount -t tmpfs none /mnt/own; echo hello | sudo tee /mnt/own/file /run/other",
  )
  expect([
    await run("file", "read", "dev", "/mnt/own/file"),
    await run("file", "read", "dev", "/run/other"),
  ]).toEqual(["hello", "hello"])
}, 300_000)

test("it runs on over a stop and in a fork, which is itself", async () => {
  await sh(
    "dev",
    `printf '${unit.replaceAll("\n", "\\n").replaceAll("'", "'\\''")}' | sudo tee /etc/systemd/system/own.service`,
  )
  await sh("dev", "sudo systemctl enable --now --quiet own 2>&1")
  const ask = "systemctl show --value -p MainPID own; hostname; ps -o comm= 1"
  const [pid] = (await sh("dev", ask)).split("\n")
  await run("stop", "dev")
  expect(await sh("dev", ask)).toBe(`${pid}\ndev\nsystemd`)
  await run("create", "--name", "fork", "--from", "dev")
  expect(await sh("fork", ask)).toBe(`${pid}\nfork\nsystemd`)
  // systemd has unmounted the file in which the agent writes it.
  const machineId = (sandbox: string) => sh(sandbox, "cat /etc/machine-id")
  expect(await machineId("fork")).not.toBe(await machineId("dev"))
}, 120_000)

test("a restart ends systemd in good order, and starts it again", async () => {
  await run("restart", "dev")
  expect(await sh("dev", "cat /workspace/stopped")).toBe("in order")
  await until(
    "the unit runs again",
    async () => (await sh("dev", "systemctl is-active own || true")) === "active",
  )
}, 120_000)

test("a power off stops it, and why tells an end of the init by itself", async () => {
  await sh("fork", "sudo systemctl exit 3 --no-block")
  await sh("dev", "sudo rm /workspace/stopped; sudo poweroff")
  for (const [sandbox, cause, reason] of [
    ["dev", "guest_poweroff", "it was powered off inside"],
    ["fork", "init_ended", "its init ended: exit code 3"],
  ] as const) {
    await until(`${sandbox} has stopped`, async () => (await why(sandbox)).thermal === "cold")
    const { reason: told, ends } = await why(sandbox)
    expect([told, ends.at(-1).meta]).toEqual([
      expect.stringContaining(reason),
      expect.objectContaining({ cause, reason }),
    ])
  }
}, 180_000)

test("busybox's init runs beside services, ends and reboots its machine, and dies of it; without one it is refused", async () => {
  const refused = await own.bhatti(["create", "--name", "none", "--init-system"])
  expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("no init")])
  const directory = join(own.dataDir, "..")
  const busybox = "/run/bhatti/kit/bin/busybox"
  await Bun.write(join(directory, "init"), `#!/bin/sh\nexec ${busybox} init\n`)
  await chmod(join(directory, "init"), 0o755)
  await Bun.write(
    join(directory, "inittab"),
    "::sysinit:/bin/sh -c 'echo up >> /workspace/told'\n::shutdown:/bin/sh -c 'echo down >> /workspace/told'\n",
  )
  await run(
    ...["create", "--name", "box", "--init-system", "--service", "web=exec sleep 1000"],
    ...[
      "--file",
      `${join(directory, "init")}:/sbin/init`,
      "--file",
      `${join(directory, "inittab")}:/etc/inittab`,
    ],
  )
  const told = (text: string) =>
    until(text, async () => (await sh("box", "xargs < /workspace/told || true")) === text)
  await told("up")
  expect(await sh("box", "ps -o comm= 1; ps -o pid= -C sleep | wc -l")).toBe("busybox\n1")
  await run("restart", "box")
  await told("up down up")
  // The command's machine ends under it.
  await own.bhatti(["exec", "box", "--", "sudo", busybox, "reboot"])
  await until("it has booted", async () => (await why("box")).started_from_disk === "it was rebooted inside")
  await told("up down up down up")
  // The kernel ends the init for lack of memory.
  await own.bhatti([
    "exec",
    "box",
    "--",
    "sh",
    "-c",
    "echo 1000 | sudo tee /proc/1/oom_score_adj; tail /dev/zero",
  ])
  await until("it has stopped", async () => (await why("box")).thermal === "cold")
  expect((await why("box")).reason).toContain("its init ended: killed for lack of memory")
}, 180_000)
