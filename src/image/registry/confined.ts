/**
 * Runs skopeo, which speaks to registries that users choose, apart from the host: a user id of its own without any
 * right, own namespaces of mounts, processes and names, and a root with nothing but Debian's /usr, certificates and one
 * directory to work in. It stays in the host's network, where `network/registry-egress.ts` says what its user id may
 * reach. Credentials come over a pipe and lie only in the memory of that root.
 */

import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { readOfProcess, readStat } from "../../lib/process-identity.ts"

export type Confined = {
  /** Seen as /fetched; the only place that can be written to. */
  directory: string
  uid: number
  /** Written to /auth.json. */
  credentials?: string | undefined
  /** Lines of /etc/hosts, besides localhost. */
  hosts?: readonly string[]
  /** Empty: names are not resolved. */
  nameServers?: readonly string[]
  /** Certificates of an operator's registry, seen in /certs. */
  caFile?: string | undefined
  fileBytesMax: number
  deadlineMs: number
  signal: AbortSignal
}

const stdoutBytesMax = 4 * 1024 * 1024
/** A process stops within microseconds, unless it waits for a disk. */
const looksMax = 50
const stderrBytesMax = 16 * 1024

/**
 * Arguments: root, directory, uid, size of files in blocks, file of certificates, lines of two files. The shell stays
 * as the first process of the namespace: the kernel forgets which signal a process gets at its parent's end when it
 * changes its user id, so that the program itself would outlive the wrapper.
 */
const script = `set -eu
umask 022
root=$1 directory=$2 uid=$3 blocks=$4 ca=$5 hosts=$6 servers=$7
shift 7
bind() {
  mount --bind "$1" "$2"
  mount -o "remount,bind,nosuid,nodev,$3" "$2"
}
mount -t tmpfs -o mode=0755,size=8m,nosuid,nodev none "$root"
cd "$root"
mkdir -p usr etc/ssl/certs etc/containers/registries.d fetched certs dev proc old
for link in bin lib lib64 sbin; do ln -s "usr/$link" "$link"; done
bind /usr usr ro
mount -t tmpfs -o mode=0755,size=4k,ro none usr/local
[ ! -d /etc/ssl/certs ] || bind /etc/ssl/certs etc/ssl/certs ro
bind "$directory" fetched noexec
mount -t proc -o nosuid,nodev,noexec none proc
: >dev/null
mount --bind /dev/null dev/null
printf '%s\\n' "$servers" >etc/resolv.conf
printf '127.0.0.1 localhost\\n%s\\n' "$hosts" >etc/hosts
printf '{"default":[{"type":"insecureAcceptAnything"}]}' >etc/containers/policy.json
: >etc/containers/registries.conf
[ -z "$ca" ] || cat "$ca" >certs/ca.crt
cat >auth.json
chown "$uid" auth.json && chmod 0400 auth.json
pivot_root . old
umount --lazy /old
rmdir /old
mount -o remount,ro,nosuid,nodev /
cd /fetched
ulimit -f "$blocks" && ulimit -c 0
setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@" || exit $?
`

export type Ended = {
  code: number | null
  stdout: Buffer
  stderr: string
  isLate: boolean
  isTooMuch: boolean
}

/** Runs the program to its end, however that comes; throws if it could not be started, or `signal` aborts. */
export async function runConfined(command: readonly string[], options: Confined): Promise<Ended> {
  const root = join(options.directory, "..", "root")
  await mkdir(root, { recursive: true, mode: 0o700 })
  // Up to the listener below nothing is awaited, which would miss an abort.
  options.signal.throwIfAborted()
  const blocks = Math.ceil(options.fileBytesMax / 512)
  const child = Bun.spawn(
    [
      // It ends with the daemon, however that ends, and its whole namespace with it.
      ...["setpriv", "--pdeathsig", "KILL"],
      ...["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL"],
      ...["--propagation", "private"],
      ...["/bin/sh", "-c", script, "sh", root, options.directory, `${options.uid}`, `${blocks}`],
      ...[options.caFile ?? "", (options.hosts ?? []).join("\n")],
      (options.nameServers ?? []).map((server) => `nameserver ${server}`).join("\n"),
      ...command,
    ],
    {
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        LC_ALL: "C",
        HOME: "/fetched",
        TMPDIR: "/fetched",
        CONTAINERS_REGISTRIES_CONF: "/etc/containers/registries.conf",
      },
      stdin: Buffer.from(options.credentials ?? "{}"),
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  let isLate = false
  let isTooMuch = false
  const kill = () => killWithChild(child)
  const deadline = setTimeout(() => {
    isLate = true
    kill()
  }, options.deadlineMs)
  options.signal.addEventListener("abort", kill, { once: true })
  try {
    const [stdout, stderr] = await Promise.all([
      collect(child.stdout, () => {
        isTooMuch = true
        kill()
      }),
      tail(child.stderr),
      child.exited,
    ])
    options.signal.throwIfAborted()
    return { code: child.exitCode, stdout, stderr, isLate, isTooMuch }
  } finally {
    clearTimeout(deadline)
    options.signal.removeEventListener("abort", kill)
  }
}

/**
 * The wrapper's end ends its child, unless that has just been made and has not asked for the signal yet. A wrapper that
 * is stopped makes no child any more and leaves none unread, so that its child's pid is right.
 */
function killWithChild(wrapper: Bun.Subprocess): void {
  const { pid } = wrapper
  if (wrapper.exitCode !== null || wrapper.signalCode !== null) return
  wrapper.kill("SIGSTOP")
  for (let look = 0; look < looksMax && !/[TZX]/.test(readStat(pid)?.[0] ?? "X"); look++) Bun.sleepSync(1)
  const children = readStat(pid)?.[0] === "T" ? readOfProcess(pid, `task/${pid}/children`).split(" ") : []
  for (const child of children) if (child !== "") process.kill(Number(child), "SIGKILL")
  wrapper.kill("SIGKILL")
}

async function collect(stream: ReadableStream<Uint8Array>, onTooMuch: () => void): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of stream) {
    size += chunk.length
    if (size > stdoutBytesMax) onTooMuch()
    else chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let kept = Buffer.alloc(0)
  for await (const chunk of stream) kept = Buffer.concat([kept, chunk]).subarray(-stderrBytesMax)
  return kept.toString("utf8")
}

/** The program's path, or an error that says what to install. */
export function findSkopeo(): string {
  const path = Bun.which("skopeo", { PATH: "/usr/bin" })
  if (path !== null) return path
  throw new AppError("unavailable", "images cannot be pulled: skopeo is not installed on this host", {
    hint: "the operator installs it with: apt-get install skopeo",
    subject: { kind: "host" },
    retryable: false,
  })
}
