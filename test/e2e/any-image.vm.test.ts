/**
 * Images that are not ours: their own configuration holds, and those without a shell, users or a C library work. The
 * images are made here; how they are fetched and unpacked is tested elsewhere.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { makeAuthority } from "../support/authority.ts"
import { binary, type Installation, install, until } from "../support/installation.ts"
import { addBusybox, buildGo, linkBusybox, MadeDisk, succeed } from "../support/made-image.ts"
import { Tmux, tmuxIsThere } from "../support/tmux.ts"

let own: Installation
const disks = new DisposableStack()
const here = mkdtempSync("/tmp/bhatti-any-image-")
disks.defer(() => rmSync(here, { recursive: true }))

/** Says what it was given, and can look a name up; a static program, as distroless images have them. */
const sayer = `package main
import ("crypto/x509"; "fmt"; "net"; "os"; "strings")
func main() {
	if len(os.Args) > 1 && os.Args[1] == "trust" {
		pool, err := x509.SystemCertPool()
		fmt.Println(len(pool.Subjects()), err)
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "lookup" {
		addresses, err := net.LookupHost(os.Args[2])
		fmt.Println(addresses, err)
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "exit" { fmt.Println("leaves"); var code int; fmt.Sscan(os.Args[2], &code); os.Exit(code) }
	directory, _ := os.Getwd()
	name, _ := os.Hostname()
	fmt.Println(strings.Join(os.Args[1:], " "), os.Getuid(), os.Getgid(), directory, os.Getenv("HOME"), os.Getenv("APP"), name)
}`

const inAlpine = { PATH: "/app/bin:/usr/bin:/bin", APP: "from the image" }

/** As Alpine has it, with links that stand for directories, a resolver's file that leads nowhere, and no /tmp. */
function fillAlpine(tree: string): void {
  for (const folder of ["usr/bin", "usr/lib", "etc", "var", "run/app", "app"])
    mkdirSync(join(tree, folder), { recursive: true })
  symlinkSync("usr/bin", join(tree, "bin"))
  symlinkSync("usr/lib", join(tree, "lib"))
  symlinkSync("/run", join(tree, "var/run"))
  symlinkSync("../run/systemd/resolve/stub-resolv.conf", join(tree, "etc/resolv.conf"))
  writeFileSync(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/ash\nann:x:1001:1001::/home/ann:/bin/sh\n",
  )
  writeFileSync(join(tree, "etc/group"), "root:x:0:\nann:x:1001:\nstaff:x:50:ann\n")
  writeFileSync(join(tree, "etc/profile"), "export PATH=/nowhere\n")
  chownSync(join(tree, "run/app"), 1001, 50)
  chmodSync(join(tree, "run/app"), 0o2770)
  addBusybox(own.dataDir, tree, "usr/bin")
  linkBusybox(tree, "usr/bin", [
    "sh",
    "ash",
    "id",
    "ls",
    "cat",
    "pwd",
    "env",
    "nslookup",
    "stat",
    "echo",
    "sleep",
    "hostname",
    "sync",
    "date",
    "touch",
  ])
  succeed(["cp", "/lib/ld-musl-x86_64.so.1", "--dereference", join(tree, "usr/lib/ld-musl-x86_64.so.1")])
  const source = join(tree, "musl.c")
  writeFileSync(
    source,
    '#include <stdio.h>\n#include <netdb.h>\nint main(void){struct addrinfo*a;int e=getaddrinfo("localhost","80",0,&a);printf("musl %d\\n",e);return 7;}\n',
  )
  succeed(["musl-gcc", "-o", join(tree, "usr/bin/hello-musl"), source])
  chmodSync(tree, 0o555)
}

beforeAll(async () => {
  const { caFile } = makeAuthority(here)
  own = await install({ config: `guest_ca: ${caFile}` })
  const alpine = disks.use(new MadeDisk())
  fillAlpine(alpine.tree)
  await alpine.install(own.dataDir, "alpine", { env: inAlpine })
  await alpine.install(own.dataDir, "numbers", { user: "1001:0", workdir: "/srv/made", env: inAlpine })

  await alpine.install(own.dataDir, "small", { user: "bob", env: inAlpine }, { sizeMib: 256 })

  const bare = disks.use(new MadeDisk())
  buildGo(sayer, join(bare.tree, "sayer"))
  await bare.install(own.dataDir, "distroless", {
    env: { APP: "bare" },
    entrypoint: ["/sayer"],
    cmd: ["by", "default"],
    ports: [8080],
    labels: { "org.example.team": "any" },
  })
}, 600_000)
afterAll(async () => {
  disks.dispose()
  await own[Symbol.asyncDispose]()
}, 60_000)

async function run(words: string[]) {
  const { stdout, stderr, exitCode } = await own.bhatti(words)
  return { stdout: stdout.trim(), stderr: stderr.trim(), exitCode }
}
async function create(name: string, image: string, ...more: string[]): Promise<void> {
  const made = await run(["create", "--name", name, "--image", image, ...more])
  if (made.exitCode !== 0)
    throw new Error(`${made.stderr}\n${own.daemonLog().split("\n").slice(-20).join("\n")}`)
}
const sh = async (sandbox: string, script: string, ...options: string[]) =>
  (await run(["exec", ...options, sandbox, "--", "sh", "-c", script])).stdout

describe("an image like Alpine's", () => {
  test("runs commands as root in its directory with its PATH, and its musl programs and links work", async () => {
    await create("alpine", "alpine")
    expect(await sh("alpine", "id -u; pwd; echo $PATH $HOME $APP $LANG $USER; echo /lohar/* /home/*")).toBe(
      "0\n/\n/app/bin:/usr/bin:/bin /root from the image\n/lohar/* /home/*",
    )
    expect(await run(["exec", "alpine", "--", "hello-musl"])).toMatchObject({ stdout: "musl 0", exitCode: 7 })
    expect(await sh("alpine", "echo $APP", "-e", "APP=mine", "-u", "ann", "-w", "/etc")).toBe("mine")
    expect(await sh("alpine", "id; pwd", "-u", "ann", "-w", "/etc")).toBe(
      "uid=1001(ann) gid=1001(ann) groups=50(staff),1001(ann)\n/etc",
    )
  }, 120_000)

  test("has /tmp, name servers, host name, machine id, and its own files in /run", async () => {
    expect(
      await sh("alpine", "stat -c %a /tmp; hostname; cat /etc/hostname; stat -c %s /etc/machine-id"),
    ).toBe("1777\nalpine\nalpine\n33")
    expect(await sh("alpine", "cat /etc/resolv.conf")).toMatch(/^nameserver 10\./)
    expect(
      await sh("alpine", "nslookup alpine.bhatti | grep -c 'Address: 10\\.' || cat /etc/resolv.conf"),
    ).toBe("1")
    expect(await sh("alpine", "stat -c '%a %u %g' /run/app /var/run/app")).toBe("2770 1001 50\n2770 1001 50")
  })

  test("is itself again after a stop, a boot from its disk and a copy", async () => {
    await sh("alpine", "echo mine > /etc/mine; echo old > /run/old")
    expect((await run(["stop", "alpine"])).exitCode).toBe(0)
    expect(await sh("alpine", "cat /run/old /etc/mine; echo $APP")).toBe("old\nmine\nfrom the image")
    expect((await run(["restart", "alpine"])).exitCode).toBe(0)
    expect(
      await sh("alpine", "cat /run/old /etc/mine; echo $APP; id -u; stat -c %u /run/app; ls /home"),
    ).toBe("mine\nfrom the image\n0\n1001")
    expect((await run(["create", "--from", "alpine", "--name", "copy"])).exitCode).toBe(0)
    expect(await sh("copy", "cat /etc/mine; echo $APP; hostname")).toBe("mine\nfrom the image\ncopy")
  }, 120_000)

  test("with USER 1001:0 and a missing WORKDIR runs there, and its files belong to that user", async () => {
    await create("numbers", "numbers")
    expect(await sh("numbers", "id -u; id -g; pwd; stat -c %u /srv/made; echo $HOME")).toBe(
      "1001\n0\n/srv/made\n0\n/home/ann",
    )
    writeFileSync(join(own.dataDir, "..", "up"), "content")
    expect((await run(["cp", join(own.dataDir, "..", "up"), "numbers:up"])).exitCode).toBe(0)
    expect(await sh("numbers", "stat -c '%u %g' up; cat up")).toBe("1001 0\ncontent")
    expect(await sh("numbers", "id -u; id -g; echo $HOME", "-u", "4000")).toBe("4000\n0\n/")
  })

  test("with a user that it does not know says so and never runs as root; -u names another", async () => {
    await create("nobody", "small")
    const refused = await run(["exec", "nobody", "--", "id"])
    expect(refused).toMatchObject({ exitCode: 2, stdout: "" })
    expect(refused.stderr).toContain(`the image's own user "bob" is not in its /etc/passwd`)
    expect(await sh("nobody", "id -u", "-u", "ann:staff")).toBe("1001")
  })
})

test("a disk smaller than a sandbox's grows to its size, also beyond the default", async () => {
  const gigabytes = async (sandbox: string) => {
    const [blocks = 0, bytes = 0] = (await sh(sandbox, "stat -f -c '%b %S' /", "-u", "0"))
      .split(" ")
      .map(Number)
    return (blocks * bytes) / 1024 ** 3
  }
  expect(await gigabytes("nobody")).toBeGreaterThan(7)
  await create("large", "small", "--disk", "12G")
  expect(await gigabytes("large")).toBeGreaterThan(11)
}, 60_000)

describe("an image of one static program", () => {
  test("runs it, and has no shell, users or /etc", async () => {
    await create("bare", "distroless")
    expect(await run(["exec", "bare", "--", "/sayer", "hi"])).toMatchObject({
      stdout: "hi 0 0 / / bare bare",
      exitCode: 0,
    })
    expect((await run(["exec", "bare", "--", "/sayer", "lookup", "bare.bhatti"])).stdout).toMatch(
      /^\[10\..*<nil>$/,
    )
    expect((await run(["exec", "bare", "--", "/sayer", "trust"])).stdout).toBe("1 <nil>")
    const none = await run(["exec", "bare", "--", "sh", "-c", "id"])
    expect(none.exitCode).toBe(127)
    expect(none.stderr).toContain(`image "distroless"`)
  }, 120_000)

  test.if(tmuxIsThere)("has a shell from the host, which says so", async () => {
    await using terminal = await Tmux.open({ env: { BHATTI_URL: own.url, BHATTI_TOKEN: own.key } })
    await terminal.run(`clear; ${binary} shell bare`)
    await terminal.shows("This image has no shell.")
    await terminal.run("ls -d /sayer; echo six-$((6*7))")
    await terminal.shows("six-42")
    expect(await terminal.screen()).not.toContain("not found")
    await terminal.run("exit")
  })

  test("takes and gives files without any program of its own", async () => {
    const local = join(own.dataDir, "..", "local")
    mkdirSync(join(local, "deep"), { recursive: true })
    writeFileSync(join(local, "deep/file"), "content")
    expect((await run(["cp", local, "bare:/data"])).exitCode).toBe(0)
    expect((await run(["file", "read", "bare", "/data/deep/file"])).stdout).toBe("content")
    expect((await run(["file", "ls", "bare", "/etc"])).stdout).toContain("resolv.conf")
    const back = join(own.dataDir, "..", "back")
    expect((await run(["cp", "bare:/data", back])).exitCode).toBe(0)
    expect(await Bun.file(join(back, "deep/file")).text()).toBe("content")
  })
})

describe("the image's program", () => {
  test("runs with its output here, and its exit code passes through", async () => {
    expect(await run(["run", "--rm", "--name", "gone", "distroless"])).toMatchObject({
      stdout: "by default 0 0 / / bare gone",
      exitCode: 0,
    })
    expect((await run(["inspect", "gone"])).exitCode).toBe(1)
    const left = await run(["run", "--rm", "-e", "APP=mine", "distroless", "exit", "7"])
    expect(left).toMatchObject({ stdout: "leaves", exitCode: 7 })
    const kept = await run(["run", "--name", "kept", "-w", "/etc", "-u", "5:6", "distroless", "--", "hi"])
    expect(kept).toMatchObject({ stdout: "hi 5 6 /etc / bare kept", exitCode: 0 })
    expect((await run(["run", "--rm", "alpine"])).stderr).toContain(`image "alpine" names no program to run`)
  }, 120_000)

  test("is ended by Ctrl-C, and with --rm its sandbox is destroyed", async () => {
    const running = own.start(["run", "--rm", "--name", "busy", "alpine", "sleep", "100"])
    running.stdin.end()
    await until("it runs", async () => (await run(["ps", "busy"])).stdout.includes("sleep 100"))
    expect((await run(["ps", "busy"])).stdout).toContain("main")
    running.kill("SIGINT")
    expect(await running.exited).toBe(130)
    expect((await run(["inspect", "busy"])).exitCode).toBe(1)
  }, 60_000)

  test("runs as the session main with --run, again after a boot, and its port is the default of publish", async () => {
    await create("web", "distroless", "--run", "--", "lookup", "web.bhatti")
    const output = async () => (await run(["logs", "web", "main"])).stdout
    await until("it has spoken", async () => /^\[10\./.test(await output()))
    const { image_config: config, main } = JSON.parse((await run(["inspect", "web", "--json"])).stdout)
    expect(main).toEqual(["/sayer", "lookup", "web.bhatti"])
    expect(config).toMatchObject({
      labels: { "org.example.team": "any" },
      env: { APP: "bare" },
      ports: [8080],
    })
    expect((await run(["restart", "web"])).exitCode).toBe(0)
    await until("it has spoken again", async () => /^\[10\./.test(await output()))
    expect((await run(["publish", "web", "--json"])).stdout).toContain('"port":8080')
    const missing = await run(["create", "--name", "never", "--image", "alpine", "--run", "--", "no-such"])
    expect(missing.exitCode).not.toBe(0)
    expect(missing.stderr).toContain("no-such")
    expect((await run(["inspect", "never"])).exitCode).toBe(1)
  }, 60_000)
})
