/** A process as the kernel knows it, read as root: its rights and its system call filters. */

import { readdirSync, readFileSync } from "node:fs"

const read = (pid: number, name: string) => readFileSync(`/proc/${pid}/${name}`, "utf8")

/** Rights that two machines have in common if they are confined in the same way. */
export function rightsOf(pid: number) {
  const tasks = readdirSync(`/proc/${pid}/task`).map((task) => read(pid, `task/${task}/status`))
  const kept =
    /^(Umask|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Speculation_Store_Bypass):.*$/gm
  const stat = read(pid, "stat")
  const [, parent, , session, terminal, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return {
    ofEachThread: [...new Set(tasks.map((status) => (status.match(kept) ?? []).join("\n")))],
    limits: read(pid, "limits"),
    outOfMemoryScore: read(pid, "oom_score_adj"),
    session: [Number(parent) === 1, Number(session) === pid, terminal, rest[11]],
    mounts: mountsOf(pid),
    files: Bun.spawnSync(["find", ".", "-xdev", "-printf", "%p %m %U\n"], { cwd: `/proc/${pid}/root` })
      .stdout.toString()
      .split("\n")
      .filter((line) => !line.startsWith("./proc/"))
      .toSorted(),
    processes: readdirSync(`/proc/${pid}/root/proc`).toSorted(),
    innerPid: /^NSpid:\t\d+\t(.*)$/m.exec(read(pid, "status"))?.[1],
    network: read(pid, "net/dev").split("\n").slice(2),
    coreFilter: read(pid, "coredump_filter"),
  }
}

/** Without the numbers that the kernel gives out. */
function mountsOf(pid: number): string[] {
  const lines = read(pid, "mountinfo").trim().split("\n")
  return lines.map((line) => line.split(" ").slice(3).join(" ")).toSorted()
}

export function userOf(pid: number): string[] {
  const status = read(pid, "status")
  return ["Uid", "Gid"].flatMap(
    (name) => new RegExp(`^${name}:\t(.*)$`, "m").exec(status)?.[1]?.split("\t") ?? [],
  )
}

type Instruction = { code: number; jt: number; jf: number; k: number }
export type Filters = Instruction[][]

/** Stops the process for a moment. */
const dump = `
  my $pid = $ARGV[0] + 0;
  syscall(101, 0x4206, $pid, 0, 0) == 0 or die "seize: $!"; syscall(101, 0x4207, $pid, 0, 0); waitpid $pid, 0x40000000;
  for (my $index = 0; ; $index++) {
    my $count = syscall(101, 0x420c, $pid, $index, 0); last if $count < 0;
    my $program = "\\0" x (8 * $count); syscall(101, 0x420c, $pid, $index, $program) == $count or die "filter: $!";
    print unpack("H*", $program), "\\n";
  }
  syscall(101, 17, $pid, 0, 0);`

export function filtersOf(pid: number): Filters {
  const { stdout, stderr } = Bun.spawnSync(["perl", "-e", dump, `${pid}`])
  if (stderr.length > 0) throw new Error(stderr.toString())
  return stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => instructionsOf(Buffer.from(line, "hex")))
}

function instructionsOf(bytes: Buffer): Instruction[] {
  return Array.from({ length: bytes.length / 8 }, (_, index) => ({
    code: bytes.readUInt16LE(index * 8),
    jt: bytes.readUInt8(index * 8 + 2),
    jf: bytes.readUInt8(index * 8 + 3),
    k: bytes.readUInt32LE(index * 8 + 4),
  }))
}

export type Call = { number: number; architecture?: number; arguments?: number[] }

/** The kernel's answer to a system call: the strictest of all filters. */
export function answerOf(filters: Filters, call: Call): string {
  const words = Buffer.alloc(64)
  words.writeUInt32LE(call.number, 0)
  words.writeUInt32LE(call.architecture ?? 0xc000_003e, 4)
  for (const [index, value] of (call.arguments ?? []).entries())
    words.writeBigUInt64LE(BigInt(value), 16 + 8 * index)
  const answers = filters.map((filter) => run(filter, words))
  // As signed numbers, the strictest action is the least.
  const [strictest = 0] = answers.toSorted((one, other) => (one & ~0xffff) - (other & ~0xffff))
  return (strictest >>> 0).toString(16)
}

function run(program: Instruction[], words: Buffer): number {
  let value = 0
  for (let at = 0; ; at++) {
    const { code, jt, jf, k } = program[at] ?? { code: -1, jt: 0, jf: 0, k: 0 }
    const branch = (is: boolean) => {
      at += is ? jt : jf
    }
    if (code === 0x20) value = words.readUInt32LE(k)
    else if (code === 0x15) branch(value === k)
    else if (code === 0x25) branch(value > k)
    else if (code === 0x35) branch(value >= k)
    else if (code === 0x45) branch((value & k) !== 0)
    else if (code === 0x54) value = (value & k) >>> 0
    else if (code === 0x05) at += k
    else if (code === 0x06) return k | 0
    else throw new Error(`no instruction of a filter: ${code}`)
  }
}
