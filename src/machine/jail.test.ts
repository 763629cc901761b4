/**
 * A program in QEMU's place: started in the same way, with the same descriptors, it tries what a QEMU that
 * a guest has taken over would try. perl stands in, since it makes every system call without a file of its own.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { createServer, type Server } from "node:net"
import { getPriority } from "node:os"
import { join, resolve } from "node:path"
import launcher from "../../dist/jail" with { type: "file" }
import { until } from "../../test/support/installation.ts"
import { listenUnix } from "../lib/posix.ts"
import { hostBootId, startTicks } from "../lib/process-identity.ts"
import { type Jail, prepareLauncher } from "./jail.ts"
import { KeptQemus } from "./kept-qemu.ts"
import { type Confinement, launch, setNiceness } from "./process.ts"

const isRoot = process.getuid?.() === 0
const ownUid = process.getuid?.() ?? 0
/** User ids that no other test and no installation uses. */
const uid = isRoot ? 690_000 + (process.pid % 5000) : undefined

/** Where root can make groups of version 2. */
const cgroupRoot = isRoot
  ? /^\S+ (\S+) cgroup2 rw/m.exec(readFileSync("/proc/mounts", "utf8"))?.[1]
  : undefined
if (cgroupRoot === undefined) console.log("skipped: no control groups of version 2 that this user can make")

const { size, mtimeMs } = statSync("/usr/bin/perl")
const perl = {
  binary: "/usr/bin/perl",
  version: "5",
  name: "5",
  identity: `version 5 ${size} ${mtimeMs}`,
}
let home: string
let jail: Jail
let host: Server
let hostPort: number
const abstractName = `bhatti-jail-${process.pid}`
let abstract: { stop(force?: boolean): void }
const sockets: number[] = []
/** Limit on each file that the program writes to; its output goes to one. */
const fileBytesMax = 100_000

beforeAll(async () => {
  home = mkdtempSync("/tmp/bhatti-jail-")
  for (const name of ["sandboxes", "sandboxes/sb_other"]) mkdirSync(join(home, name), { mode: 0o700 })
  for (const name of ["bhatti.db", "age.key", "sandboxes/sb_other/disk.qcow2"]) {
    writeFileSync(join(home, name), "secret")
    // Even what is wrongly open to everybody on the host.
    chmodSync(join(home, name), 0o666)
  }
  sockets.push(listenUnix(join(home, "sandboxes/sb_other/qmp.sock")))
  jail = await prepareJail(home)
  host = createServer((socket) => socket.end("host"))
  await new Promise<void>((ready) => host.listen(0, "127.0.0.1", ready))
  abstract = Bun.listen({ unix: `\0${abstractName}`, socket: { data() {} } })
  hostPort = (host.address() as { port: number }).port
})
afterAll(() => {
  for (const fd of sockets) closeSync(fd)
  host.close()
  abstract.stop(true)
  rmSync(home, { recursive: true, force: true })
})

async function prepareJail(dataDir: string): Promise<Jail> {
  const qemu = await KeptQemus.open({ dataDir, qemu: perl, forbidden: [], isOutside: false })
  return { launcher: await prepareLauncher({ dataDir, built: launcher }), root: qemu.present.root }
}

function outputTo(path: string): number {
  const fd = openSync(path, "a")
  sockets.push(fd)
  return fd
}

/** Returns the output of the script in QEMU's place. Its last line is `end`. */
async function inJail(script: string, options: { level?: Confinement["level"]; fd?: number } = {}) {
  const logPath = join(home, `${crypto.randomUUID()}.log`)
  const pid = await launch({
    binary: "/usr/bin/perl",
    arguments: ["-e", `$SIG{ALRM} = sub { die "late" }; alarm 20; $| = 1; ${script}; print "end\\n"`],
    files: options.fd === undefined ? {} : { saved: options.fd },
    confinement: {
      jail,
      level: options.level ?? "full",
      uid,
      groups: [],
      devices: ["/dev/null"],
      cgroup: undefined,
      fileBytesMax,
    },
    output: outputTo(logPath),
  })
  const deadline = Date.now() + 20_000
  for (;;) {
    const text = readFileSync(logPath, "utf8")
    if (text.endsWith("end\n")) return { pid, lines: text.split("\n").slice(0, -2) }
    if (Date.now() > deadline) throw new Error(`it said only: ${text}`)
    await Bun.sleep(10)
  }
}

function networkAttempts(): string {
  return `
    sub inet { socket(S, 2, 1, 0) && connect(S, pack("S n C4 x8", 2, @_)) }
    print "reached the host\\n" if inet(${hostPort}, 127, 0, 0, 1);
    print "reached an abstract socket\\n" if socket(S, 1, 1, 0) && connect(S, pack("S a*", 1, "\\0${abstractName}"));
    print "reached a socket of another sandbox\\n"
      if socket(S, 1, 1, 0) && connect(S, pack("S a108", 1, "${join(home, "sandboxes/sb_other/qmp.sock")}"));
    print "reached the link layer\\n" if socket(S, 17, 3, 768);
  `
}

describe("a program in QEMU's place", () => {
  test("finds no file of the host: neither database, keys, disks nor sockets", async () => {
    const wanted = ["bhatti.db", "age.key", "sandboxes/sb_other/disk.qcow2", "sandboxes/sb_other/qmp.sock"]
    const paths = [
      ...wanted.map((name) => join(home, name)),
      home,
      "/etc/passwd",
      "/etc/shadow",
      "/root",
      "/sys/class",
      "/sys/devices",
      "/sys/fs",
    ]
    const quoted = paths.map((path) => `"${path}"`).join(",")
    // Through the root, through what lies above it, and through every descriptor that it holds.
    const { lines } = await inJail(`for $p (${quoted}) {
      for $q ($p, "/..$p", "/../../..$p", "/proc/1/root$p", "/proc/self/cwd/../..$p", map { "/proc/self/fd/$_/../..$p" } 0..13) {
        print "found $q\\n" if -e $q || open(F, "<", $q);
      }
    }`)
    expect(lines).toEqual([])
  })

  test("has a root with nothing in it but what it needs, which it cannot write to", async () => {
    const { lines } = await inJail(`
      opendir D, "/"; print join(" ", sort grep { !/^\\./ } readdir D), "\\n";
      opendir D, "/dev"; print join(" ", sort grep { !/^\\./ } readdir D), "\\n";
      opendir D, "/etc"; print join(" ", sort grep { !/^\\./ } readdir D), "\\n";
      for $d ("/", "/dev", "/usr/bin", "/proc", "/tmp") { print "wrote to $d\\n" if open(F, ">", "$d/x") }
      print "changed its program\\n" if chmod(0777, "/usr/bin/perl") || unlink("/usr/bin/perl");
    `)
    expect(lines).toEqual(["dev etc lib lib64 proc usr", "kvm null", "ld.so.cache"])
  })

  test("sees no process but itself", async () => {
    const { pid, lines } = await inJail(`
      opendir D, "/proc"; print join(" ", sort grep { !/^\\./ } readdir D), "\\n";
      print "pid $$ parent ", getppid, "\\n";
      print "reached $_\\n" for grep { kill 0, $_ } ${process.pid}, 2..400;
      # PTRACE_ATTACH and PTRACE_SEIZE
      print "traced\\n" if syscall(101, 16, ${process.pid}, 0, 0) == 0 || syscall(101, 0x4206, ${process.pid}, 0, 0) == 0;
    `)
    expect(lines).toEqual(["1 self thread-self", "pid 1 parent 0"])
    expect(pid).toBeGreaterThan(1)
  })

  test("reaches no address and no socket, not even the host's own", async () => {
    const { lines } = await inJail(networkAttempts())
    expect(lines).toEqual([])
  })

  test("would reach all that if it were not for the jail", async () => {
    const { lines } = await inJail(
      `${networkAttempts()} print "found a file\\n" if -e "/etc/passwd"; print "found a process\\n" if -e "/proc/${process.pid}"`,
      { level: "reduced" },
    )
    expect(lines).toEqual([
      "reached the host",
      "reached an abstract socket",
      // Without root, all machines of a daemon have one user.
      ...(isRoot ? [] : ["reached a socket of another sandbox"]),
      "found a file",
      "found a process",
    ])
  })

  test.skipIf(!existsSync("/proc/self/autogroup") || !isRoot)(
    "can be made to give way, also where the kernel shares processors among sessions first",
    async () => {
      const { pid } = await inJail(`print "end\\n"; sleep 15`)
      try {
        const identity = { pid, startTicks: startTicks(pid) ?? 0, bootId: hostBootId }
        const session = () => /nice (-?\d+)$/m.exec(readFileSync(`/proc/${pid}/autogroup`, "utf8"))?.[1]
        expect([session(), getPriority(pid)]).toEqual(["0", 5])
        setNiceness(identity, 10)
        expect([session(), getPriority(pid)]).toEqual(["5", 10])
        setNiceness(identity, 5)
        expect([session(), getPriority(pid)]).toEqual(["0", 5])
      } finally {
        process.kill(pid, "SIGKILL")
      }
    },
  )

  test("has no rights and gains none", async () => {
    const { lines } = await inJail(`
      open F, "<", "/proc/self/status"; for (<F>) { s/\\s+$//; s/\\s+/ /g; print "$_\\n" if /^(Cap|NoNewPrivs)/ }
      # setuid, setgid, setgroups
      print "became root\\n" if ${isRoot ? 1 : 0} && (syscall(105, 0) == 0 || syscall(106, 0) == 0 || syscall(116, 0, 0) == 0);
      # mount, umount2, chroot, pivot_root, mknod, bpf, and unshare of each kind of namespace but the user's own
      ($none, $root, $proc, $node) = ("none", "/", "/proc", "/dev/node");
      print "mounted\\n" if syscall(165, $none, $root, $none, 32, 0) == 0;
      print "unmounted\\n" if syscall(166, $proc, 2) == 0;
      print "chroot\\n" if syscall(161, $root) == 0;
      print "pivot_root\\n" if syscall(155, $root, $proc) == 0;
      print "made a node\\n" if syscall(133, $node, 0060600, 2048) == 0;
      print "bpf\\n" if syscall(321, 0, 0, 0) == 0;
      for $kind (0x20000, 0x40000000, 0x8000000, 0x4000000, 0x20000000, 0x2000000) {
        print "unshared $kind\\n" if syscall(272, $kind) == 0;
      }
    `)
    expect(lines).toEqual([
      "CapInh: 0000000000000000",
      "CapPrm: 0000000000000000",
      "CapEff: 0000000000000000",
      "CapBnd: 0000000000000000",
      "CapAmb: 0000000000000000",
      "NoNewPrivs: 1",
    ])
  })

  test("dumps no core, opens no thousands of files, and is the host's first to die without memory", async () => {
    const { lines } = await inJail(`
      open F, "<", "/proc/self/limits"; for (<F>) { print "$1 $2 $3\\n" if /^Max (core file size|open files)\\s+(\\S+)\\s+(\\S+)/ }
      open F, "<", "/proc/self/oom_score_adj"; print <F>;
      print "nice ", getpriority(0, 0), "\\n"; setpriority(0, 0, -5);
      print "made itself first\\n" if getpriority(0, 0) < 5;
    `)
    expect(lines).toEqual(["core file size 0 0", "open files 1024 1024", "500", "nice 5"])
  })

  test.skipIf(cgroupRoot === undefined)("is in its control group from its first instruction", async () => {
    const group = join(cgroupRoot ?? "", `bhatti-test-${process.pid}`)
    mkdirSync(group)
    try {
      const logPath = join(home, "grouped.log")
      const pid = await launch({
        binary: "/usr/bin/perl",
        arguments: ["-e", 'open F, "<", "/proc/self/cgroup"; print <F>; sleep 60'],
        files: {},
        confinement: {
          jail,
          level: "full",
          uid,
          groups: [],
          devices: ["/dev/null"],
          cgroup: group,
          fileBytesMax,
        },
        output: outputTo(logPath),
      })
      expect(readFileSync(join(group, "cgroup.procs"), "utf8")).toBe(`${pid}\n`)
      process.kill(pid, "SIGKILL")
      for (const end = Date.now() + 10_000; readFileSync(join(group, "cgroup.procs"), "utf8") !== ""; ) {
        if (Date.now() > end) throw new Error("the group is never empty")
        await Bun.sleep(10)
      }
    } finally {
      rmdirSync(group)
    }
  })

  test.skipIf(!isRoot)(
    "sees a device that is closed to its user as that user's own, and makes no other",
    async () => {
      const logPath = join(home, "device.log")
      const script = `
      @s = stat("/dev/null"); printf "%o %d %d\n", $s[2], $s[4], $s[6];
      print "opened\n" if open(F, "+<", "/dev/null");
      $node = "/proc/node";
      print "made a node\n" if syscall(133, $node, 0020600, 0x101) == 0;
      opendir D, "/proc"; print join(" ", sort grep { !/^\\./ } readdir D), "\nend\n";`
      await launch({
        binary: "/usr/bin/perl",
        arguments: ["-e", script],
        files: {},
        confinement: {
          jail,
          level: "full",
          uid,
          groups: [],
          devices: [],
          ownDevices: ["/dev/null"],
          cgroup: undefined,
          fileBytesMax,
        },
        output: outputTo(logPath),
      })
      await until("it has said all", () => readFileSync(logPath, "utf8").endsWith("end\n"))
      expect(readFileSync(logPath, "utf8").split("\n").slice(0, -2)).toEqual([
        `20600 ${uid} ${(1 << 8) + 3}`,
        "opened",
        "1 self thread-self",
      ])
    },
  )

  test("holds the descriptors it was given and no other of the daemon's", async () => {
    const open = openSync(join(home, "age.key"), "r")
    sockets.push(open)
    const { lines } = await inJail(`
      opendir D, "/proc/self/fd"; print join(" ", sort { $a <=> $b } grep { /^\\d+$/ && $_ != fileno(D) } readdir D), "\\n";
    `)
    expect(lines).toEqual(["0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"])
  })

  test("no file that it holds becomes longer than its bound, whichever way it tries, and that is an error to it, not its end", async () => {
    const path = join(home, "held-for-writing")
    const held = openSync(path, "w+")
    sockets.push(held)
    const { lines } = await inJail(
      `
      $bytes = "x" x 60000;
      # write, pwrite64, ftruncate, fallocate
      print "wrote ", syscall(1, 13, $bytes, 60000), " ", syscall(1, 13, $bytes, 60000), "\\n";
      $! = 0; print "wrote ", syscall(1, 13, $bytes, 60000), " $!\\n";
      print "wrote far behind\\n" if syscall(18, 13, $bytes, 60000, 1 << 40) > 0;
      print "made it longer\\n" if syscall(77, 13, ${fileBytesMax + 1}) == 0;
      # fallocate: as itself, zeros, keeping the size, both, and moving what is behind
      for $mode (0, 0x10, 1, 0x11, 0x20) {
        print "took space in mode $mode\\n" if syscall(285, 13, $mode, 0, ${4 * fileBytesMax}) == 0;
      }
      $range = pack("ssx4qqlLl4", 0, 0, 0, ${4 * fileBytesMax}, 0, 0, 0, 0, 0, 0);
      for $kind (0x40305828, 0x4030582a, 0x40305839) {
        print "took space by $kind\\n" if syscall(16, 13, $kind, $range) == 0;
      }
      # io_uring_setup: a ring is asked for all of these, and no filter sees it.
      $ring = "\\0" x 120; print "has a ring\\n" if syscall(425, 4, $ring) >= 0;
      # setrlimit, and prlimit64 of itself
      $unlimited = pack("QQ", -1, -1); $twice = pack("QQ", ${2 * fileBytesMax}, ${2 * fileBytesMax});
      print "raised its limit\\n" if syscall(160, 1, $unlimited) == 0 || syscall(302, 0, 1, $twice, 0) == 0;
      print "wrote more\\n" if syscall(1, 13, $bytes, 60000) > 0;
      # QEMU gives back space with this.
      print "cannot punch\\n" if syscall(285, 13, 3, 0, 4096) != 0;
      `,
      { fd: held },
    )
    expect(lines).toEqual([`wrote 60000 ${fileBytesMax - 60_000}`, "wrote -1 File too large"])
    expect(statSync(path).size).toBe(fileBytesMax)
    expect(statSync(path).blocks * 512).toBeLessThan(2 * fileBytesMax)
  })

  test("runs as its own user on the host, in namespaces of its own, as nobody's child", async () => {
    const held = openSync(join(home, "held"), "w+")
    sockets.push(held)
    const logPath = join(home, "sleeper.log")
    const sleeper = await launch({
      binary: "/usr/bin/perl",
      arguments: ["-e", "sleep 60"],
      files: { saved: held },
      confinement: {
        jail,
        level: "full",
        uid,
        groups: [],
        devices: ["/dev/null"],
        cgroup: undefined,
        fileBytesMax,
      },
      output: outputTo(logPath),
    })
    try {
      const status = readFileSync(`/proc/${sleeper}/status`, "utf8")
      expect(status).toMatch(new RegExp(`^Uid:\\t${uid ?? ownUid}\\t`, "m"))
      expect(status).toMatch(/^NSpid:\t\d+\t1$/m)
      expect(status).not.toMatch(new RegExp(`^PPid:\\t${process.pid}$`, "m"))
      for (const kind of ["mnt", "pid", "ipc", "uts", "net"]) {
        expect(statSync(`/proc/${sleeper}/ns/${kind}`).ino, kind).not.toBe(
          statSync(`/proc/self/ns/${kind}`).ino,
        )
      }
      // Detached from every terminal and session.
      const [, , , session, terminal] = readFileSync(`/proc/${sleeper}/stat`, "utf8")
        .slice(readFileSync(`/proc/${sleeper}/stat`, "utf8").lastIndexOf(")") + 2)
        .split(" ")
      expect(Number(session)).toBe(sleeper)
      expect(Number(terminal)).toBe(0)
    } finally {
      process.kill(sleeper, "SIGKILL")
    }
  })
})

test.skipIf(!isRoot)(
  "nothing is started as a user that another process is, and that one is named",
  async () => {
    const taken = (uid ?? 0) + 5000
    const start = () =>
      launch({
        binary: "/usr/bin/perl",
        arguments: ["-e", "sleep 60"],
        files: {},
        confinement: {
          jail,
          level: "full",
          uid: taken,
          isAlone: true,
          groups: [],
          devices: ["/dev/null"],
          cgroup: undefined,
          fileBytesMax,
        },
        output: outputTo(join(home, "alone.log")),
      })
    const first = await start()
    await expect(start()).rejects.toThrow(`user id ${taken} is in use by process ${first}`)
    process.kill(first, "SIGKILL")
    for (const end = Date.now() + 10_000; startTicks(first) !== undefined; await Bun.sleep(5))
      if (Date.now() > end) throw new Error("it does not end")
    // This process hides its user in /proc by not being dumpable; its saved user id alone counts too.
    const hidden = Bun.spawn(
      [
        "perl",
        "-e",
        `$| = 1; syscall(117, 0, 0, ${taken}); syscall(157, 4, 0, 0, 0, 0); print "ready\n"; sleep 60`,
      ],
      { stdout: "pipe" },
    )
    await hidden.stdout.getReader().read()
    try {
      await expect(start()).rejects.toThrow(`in use by process ${hidden.pid}`)
    } finally {
      hidden.kill("SIGKILL")
      await hidden.exited
    }
    process.kill(await start(), "SIGKILL")
  },
)

test("without namespaces it still has no rights, and only the reduced level is without", async () => {
  const { lines } = await inJail(
    `open F, "<", "/proc/self/status"; for (<F>) { s/\\s+$//; s/\\s+/ /g; print "$_\\n" if /^(CapEff|CapPrm|NoNewPrivs)/ }
     print -e "/etc/passwd" ? "the host's root\\n" : "another root\\n"`,
    { level: "reduced" },
  )
  expect(lines).toEqual([
    "CapPrm: 0000000000000000",
    "CapEff: 0000000000000000",
    "NoNewPrivs: 1",
    "the host's root",
  ])
})

test("a jail that cannot be entered starts nothing and says which step failed", async () => {
  const broken = { ...jail, root: resolve(home, "missing") }
  const start = launch({
    binary: "/usr/bin/perl",
    arguments: ["-e", "1"],
    files: {},
    confinement: {
      jail: broken,
      level: "full",
      uid,
      groups: [],
      devices: ["/dev/null"],
      cgroup: undefined,
      fileBytesMax,
    },
    output: outputTo(join(home, "broken.log")),
  })
  expect(start).rejects.toMatchObject({ code: "unavailable", message: expect.stringContaining("missing") })
})

test("the jail does not depend on the umask and is made once", async () => {
  const dataDir = mkdtempSync("/tmp/bhatti-jail-")
  const before = process.umask(0o077)
  try {
    const made = await prepareJail(dataDir)
    for (const name of ["jail", "qemu"]) expect(statSync(join(dataDir, name)).mode & 0o777).toBe(0o700)
    expect(statSync(made.root).mode & 0o777).toBe(0o755)
    expect(statSync(join(made.root, "usr/bin/perl")).mode & 0o777).toBe(0o755)
    const { ino } = statSync(made.root)
    expect(await prepareJail(dataDir)).toEqual(made)
    expect(statSync(made.root).ino).toBe(ino)
  } finally {
    process.umask(before)
    rmSync(dataDir, { recursive: true, force: true })
  }
})
