/** The images on real machines: what the default one promises to users, and that the small one can be had beside it. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { cacheDir, type Installation, install } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ config: "images_at_need: false\n" })
  expect((await own.bhatti(["create", "--name", "dev", "--memory", "1024"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

/** Runs a script as a user would; its output, or its error. */
async function run(script: string, sandbox = "dev", options: string[] = []): Promise<string> {
  const words = ["exec", ...options, sandbox, "--", "bash", "-c", script]
  const { stdout, stderr, exitCode } = await own.bhatti(words, { deadlineMs: 280_000 })
  return exitCode === 0 ? stdout.trim() : `exit ${exitCode}: ${stderr}`
}

async function idOf(name: string): Promise<string> {
  return (JSON.parse((await own.bhatti(["inspect", name, "--json"])).stdout) as { id: string }).id
}

test("every program that docs/images.md names for the default image runs", async () => {
  const text =
    readFileSync(join(import.meta.dir, "../../docs/images.md"), "utf8")
      .split("## In `workspace`")[1]
      ?.split("\n## ")[0] ?? ""
  const programs = [...text.matchAll(/^\| `([^|]+)` \|/gm)].flatMap(([, names = ""]) => names.split("`, `"))
  expect(programs.length).toBeGreaterThan(25)
  const missing = await run(
    `for program in ${programs.join(" ")}; do command -v "$program" >/dev/null || echo $program; done`,
  )
  expect(missing).toBe("")
})

test("npm installs a package and runs its build, and its global packages belong to the user", async () => {
  const project = `
    mkdir -p tool app && cd tool
    echo '{"name":"tool","version":"1.0.0","bin":{"tool":"tool.js"}}' > package.json
    printf '#!/usr/bin/env node\\nconsole.log("built with node", process.versions.node.split(".")[0])\\n' > tool.js
    chmod +x tool.js
    cd ../app
    echo '{"name":"app","version":"1.0.0","scripts":{"build":"tool"}}' > package.json
    npm install --silent ../tool && npm run build --silent && npm config get prefix`
  expect(await run(project)).toBe("built with node 26\n/home/lohar/.local")
}, 300_000)

test("python makes environments, pip installs a package where the PATH finds its program", async () => {
  const project = `
    mkdir -p greeter && cd greeter
    printf 'from setuptools import setup\\nsetup(name="greeter", version="1", py_modules=["greeter"], entry_points={"console_scripts":["greet=greeter:main"]})\\n' > setup.py
    printf 'def main():\\n    print("hello from pip")\\n' > greeter.py
    pip install --quiet --no-index --no-build-isolation . && greet
    python -m venv --without-pip ../env && ../env/bin/python -c 'import sys; print(sys.prefix)'`
  expect(await run(project)).toBe("hello from pip\n/workspace/env")
}, 300_000)

test("the C and C++ compilers make programs, also against Node's headers", async () => {
  const project = `
    printf '#include <stdio.h>\\nint main(void){puts("from C");return 0;}\\n' > c.c && gcc -o c c.c && ./c
    printf '#include <node_version.h>\\n#include <openssl/opensslconf.h>\\nint version(){return NODE_MAJOR_VERSION;}\\n' > addon.cc
    g++ -I/usr/local/include/node -c addon.cc && echo 'from C++'`
  expect(await run(project)).toBe("from C\nfrom C++")
})

test("data from a sandbox goes through jq, as the reference shows", async () => {
  await run(`echo '{"name":"bhatti"}' > /workspace/data.json`)
  expect(await run("cat /workspace/data.json | jq .name")).toBe('"bhatti"')
})

describe("the kit", () => {
  const kit = "/run/bhatti/kit"
  const loader = `/kit/lib/ld.so --library-path /kit/lib`

  test("is mounted read-only, and guest root can write neither to it nor to its disk", async () => {
    expect(
      await run(`findmnt -no FSTYPE,OPTIONS ${kit} 2>/dev/null || grep ' ${kit} ' /proc/mounts`),
    ).toMatch(/^ext4 +ro,nosuid,nodev/)
    const disk = await run(`awk '$2 == "${kit}" { print $1 }' /proc/mounts`)
    const words = await run(
      `sudo touch ${kit}/x; sudo mount -o remount,rw ${kit}; sudo dd if=/dev/zero of=${disk} bs=4k count=1`,
    )
    expect(words).toMatch(/^exit [1-9]/)
    expect(words).toContain("Read-only file system")
    expect(words).toContain("write-protected")
    expect(words).toMatch(/dd: .*Operation not permitted|dd: .*Read-only/)
  })

  test("has programs that need no file of the image: busybox, the server of SSH and of sftp", async () => {
    const script = `
      exec 2>&1
      mkdir -p /tmp/empty/kit /tmp/empty/etc /tmp/empty/dev && mknod -m 666 /tmp/empty/dev/null c 1 3 && echo root:x:0:0::/:/kit/bin/sh > /tmp/empty/etc/passwd && mount --bind ${kit} /tmp/empty/kit
      ${loader.replaceAll("/kit/", `${kit}/`)} ${kit}/bin/ssh-keygen -q -t ed25519 -N '' -f /tmp/empty/etc/key
      chown 1000 /tmp/empty/etc/key
      chroot /tmp/empty /kit/bin/busybox ls /
      chroot /tmp/empty /kit/bin/sh -c 'echo no libc: /lib*'
      chroot --userspec=1000:1000 /tmp/empty ${loader} /kit/sbin/sshd -t -f /dev/null -h /etc/key && echo sshd
      chroot /tmp/empty ${loader} /kit/sbin/sftp-server -h 2>&1 | head -n 1
      umount /tmp/empty/kit`
    const words = await run(script, "dev", ["--user", "root"])
    expect(words.split("\n")).toEqual(expect.arrayContaining(["etc", "kit", "no libc: /lib*", "sshd"]))
    expect(words).toContain("sftp-server")
  })

  test("has the kernel's modules, which an image without them finds when it boots", async () => {
    const lost = "rm -rf /usr/lib/modules/*; mv /usr/sbin/modprobe /usr/sbin/modprobe-of-image; sync"
    await run(`sudo sh -c ${JSON.stringify(lost)}`)
    expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
    rmSync(join(own.dataDir, "sandboxes", await idOf("dev"), "snapshot", "manifest.json"))
    expect(await run("ls /usr/lib/modules/$(uname -r)/modules.dep >/dev/null && echo there")).toBe("there")
    expect(
      await run("sudo ip link add name br9 type bridge && ls /sys/class/net/br9 >/dev/null && echo bridge"),
    ).toBe("bridge")
  })
})

test("image list shows the default image, and minimal once the operator has installed it", async () => {
  const listed = async () =>
    JSON.parse((await own.bhatti(["image", "list", "--json"])).stdout) as {
      name: string
      is_default: boolean
    }[]
  expect(await listed()).toMatchObject([{ name: "workspace", is_default: true }])
  const tooEarly = await own.bhatti(["create", "--name", "small", "--image", "minimal"])
  expect(tooEarly.exitCode).toBe(1)
  expect(tooEarly.stderr).toContain("sudo bhatti init --image minimal")

  const made = await own.bhatti(
    ["init", "--data-dir", own.dataDir, "--cache-dir", cacheDir, "--image", "minimal"],
    { deadlineMs: 600_000 },
  )
  expect(made.exitCode).toBe(0)
  expect((await listed()).map(({ name }) => name)).toEqual(["minimal", "workspace"])
  expect((await own.bhatti(["image", "list"])).stdout).toMatch(/^NAME +OWNER +STATUS +SIZE +DISK +CREATED\n/)
  expect((await own.bhatti(["create", "--name", "small", "--image", "minimal"])).exitCode).toBe(0)
  expect(await run("python3 -c 'print(1)'; command -v gcc || echo no compiler", "small")).toBe(
    "1\nno compiler",
  )
}, 900_000)
