/**
 * A server with a real KVM on a host that has none: a machine in software emulation whose processor offers AMD's SVM, a
 * Debian kernel with its stock `kvm_amd`, and this checkout with what it needs to run tests. Slow, and good for
 * whether, not for how fast.
 *
 * The root file system is kept in the cache by what goes into it; the checkout comes on a disk that is made for each
 * boot.
 */

import { createHash } from "node:crypto"
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { dirname, join, resolve } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { commitDirectory } from "../../src/image/commit.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import { buildKit } from "../../src/image/kit.ts"
import { buildImage } from "../../src/image/rootfs.ts"
import { runProgram } from "../../src/lib/program.ts"
import { cacheDir, until } from "./installation.ts"

const root = resolve(import.meta.dir, "../..")
const packages = [
  // Debian's kernel for clouds has no KVM.
  "linux-image-amd64",
  "qemu-system-x86",
  "qemu-utils",
  "nftables",
  "iproute2",
  "dnsmasq-base",
  "kmod",
  "procps",
  "e2fsprogs",
  "lz4",
  "xz-utils",
]
const suite = "bookworm"
const rootDiskMib = 8192
const memoryMib = 5120
const cpus = 2
const buildDeadlineMs = 900_000
const bootDeadlineMs = 180_000
/** They come in parts, or not at all. */
const foldersLeftOut = ["node_modules", ".git"]
const packagesLeftOut = ["@biomejs", "@oven", "@types", "@typescript", "bun-types", "typescript"]

/**
 * Its first process: mounts, modules, `/dev/kvm` as udev makes it, then one order a line from the port and its exit
 * code back.
 */
const init = `#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs run /run
mkdir -p /run/lock
mount /dev/vdb /tmp
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in virtio_console kvm_amd tun nf_tables bridge; do modprobe $module; done
ip link set lo up
hostname outer
chgrp kvm /dev/kvm
chmod 660 /dev/kvm
for port in /sys/class/virtio-ports/*; do
  [ "$(cat $port/name)" = orders ] && exec 3<>/dev/\${port##*/}
done
printf '\\036 ready\\n' >&3
while IFS= read -r order <&3; do
  bash -c "$order" </dev/null >&3 2>&1 3>&-
  printf '\\n\\036 %d\\n' $? >&3
done
echo o >/proc/sysrq-trigger
sleep 60
`

/** As root of the tree, in which mmdebstrap has mounted what the bind mount hides. */
const diskHook = `#!/bin/sh
set -eu
mkdir "$OUTER_TREE"
mount --bind "$1" "$OUTER_TREE"
mount -t tmpfs -o mode=1777 tmpfs "$OUTER_TREE/tmp"
cp "$OUTER_INIT" "$OUTER_TREE/outer-init"
# The guest's kernel is then that of the cache, whatever is newer by now.
rm -rf "$OUTER_TREE"/var/lib/apt/lists
cp "$OUTER_TREE"/boot/vmlinuz-* "$OUTER_DIR/vmlinuz"
cp "$OUTER_TREE"/boot/initrd.img-* "$OUTER_DIR/initrd"
truncate --size=${rootDiskMib}M "$OUTER_DIR/root.raw"
mke2fs -q -F -t ext4 -E lazy_itable_init=0 -d "$OUTER_TREE" "$OUTER_DIR/root.raw"
umount --recursive "$OUTER_TREE"
`

export type OuterMachine = AsyncDisposable & {
  /** Runs one line of bash and returns its exit code; what it prints is told line by line. */
  run(order: string, options: { deadlineMs: number; onLine?: (line: string) => void }): Promise<number>
}

/** Where a boot's own disk is: tests make their installations beside the cache, so that files of it can be linked. */
export const outerDirectory = "/tmp"
export const outerCheckout = join(outerDirectory, "checkout")

/** `extra` are files to be found in `outerDirectory`, by their name there. */
export async function bootOuterMachine(extra: Record<string, string> = {}): Promise<OuterMachine> {
  await using undo = new AsyncDisposableStack()
  const home = mkdtempSync("/tmp/bhatti-outer-")
  undo.defer(() => rmSync(home, { recursive: true, force: true }))
  const server = await buildServer()
  const disk = await makeCheckoutDisk(home, extra)
  const consolePath = join(home, "console")
  const socketPath = join(home, "orders.sock")
  const qemu = Bun.spawn({
    cmd: ["qemu-system-x86_64", ...machineArguments({ server, disk, consolePath, socketPath })],
    // Where what it writes to its disks is kept.
    env: { ...process.env, TMPDIR: home },
    stdio: ["ignore", "ignore", Bun.file(join(home, "qemu.log"))],
  })
  undo.defer(async () => {
    qemu.kill("SIGKILL")
    await qemu.exited
  })
  const said = () => `${readIfThere(join(home, "qemu.log"))}\n${readIfThere(consolePath)}`.slice(-2000)
  const orders = await Orders.open(socketPath, () => qemu.exitCode === null, said)
  undo.defer(() => orders.close())
  await orders.answer({ deadlineMs: bootDeadlineMs })
  // An image's identity has the path of its kernel's modules in it.
  const linked = `mkdir -p ${dirname(cacheDir)} && ln -s ${outerDirectory}/cache ${cacheDir} && test -w /dev/kvm`
  const status = await orders.run(linked, { deadlineMs: 60_000 })
  if (status !== 0) throw new Error(`the outer machine has no KVM, or no cache: ${said()}`)
  const made = undo.move()
  return {
    run: (order, options) => orders.run(order, options),
    [Symbol.asyncDispose]: () => made.disposeAsync(),
  }
}

/** Kernel, initramfs and root file system. */
async function buildServer(): Promise<string> {
  const key = createHash("sha256").update(JSON.stringify([packages, suite, rootDiskMib, init, diskHook]))
  const directory = join(cacheDir, "outer", key.digest("hex").slice(0, 16))
  await commitDirectory(directory, async (beside) => {
    await using undo = new AsyncDisposableStack()
    const scratch = mkdtempSync("/var/tmp/bhatti-outer-")
    undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
    const [initPath, hookPath] = [join(scratch, "init"), join(scratch, "hook")]
    for (const [path, text] of [
      [initPath, init],
      [hookPath, diskHook],
    ] as const)
      writeFileSync(path, text, { mode: 0o755 })
    chmodSync(scratch, 0o755)
    await runProgram(
      [
        "mmdebstrap",
        "--variant=minbase",
        "--format=null",
        "--skip=cleanup",
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        `--include=${packages.join(",")}`,
        `--customize-hook=${hookPath}`,
        suite,
        "/dev/null",
      ],
      {
        deadlineMs: buildDeadlineMs,
        env: { TMPDIR: scratch, OUTER_TREE: join(scratch, "tree"), OUTER_INIT: initPath, OUTER_DIR: beside },
      },
    )
  })
  return directory
}

/** The checkout, its build, and the kernel and image that its installations would look for in the cache. */
async function makeCheckoutDisk(home: string, extra: Record<string, string>): Promise<string> {
  const tree = join(home, "tree")
  const checkout = join(tree, "checkout")
  mkdirSync(join(checkout, "node_modules"), { recursive: true })
  for (const name of readdirSync(root))
    if (!foldersLeftOut.includes(name)) cpSync(join(root, name), join(checkout, name), { recursive: true })
  for (const name of readdirSync(join(root, "node_modules")))
    if (!packagesLeftOut.includes(name))
      cpSync(join(root, "node_modules", name), join(checkout, "node_modules", name), {
        recursive: true,
        verbatimSymlinks: true,
      })
  for (const [name, path] of Object.entries(extra)) cpSync(path, join(tree, name))

  const kernel = await buildKernel({ cacheDir, agentPath: join(root, "dist/lohar"), report: () => {} })
  const kit = await buildKit({ cacheDir, kernel, report: () => {} })
  const image = await buildImage({ name: limits.imageDefault, cacheDir, kernel, report: () => {} })
  const needed = [
    kernel.dir,
    dirname(kernel.modulesDir),
    dirname(image.file),
    dirname(kit.file),
    join(cacheDir, "kernel-packages/last.json"),
    join(cacheDir, "kits/last.json"),
  ]
  mkdirSync(join(tree, "cache"))
  for (const path of needed) await copyKept(path, join(tree, "cache"))

  const disk = join(home, "checkout.raw")
  await runProgram(["truncate", "--size=4G", disk], { deadlineMs: 10_000 })
  await runProgram(["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0", "-d", tree, disk], {
    deadlineMs: 120_000,
  })
  rmSync(tree, { recursive: true })
  return disk
}

async function copyKept(path: string, cache: string): Promise<void> {
  const target = join(cache, path.slice(cacheDir.length + 1))
  mkdirSync(dirname(target), { recursive: true })
  await runProgram(["cp", "-a", "--sparse=always", path, target], { deadlineMs: 120_000 })
}

function machineArguments(options: {
  server: string
  disk: string
  consolePath: string
  socketPath: string
}): string[] {
  const { server, disk, consolePath, socketPath } = options
  return [
    ["-nodefaults", "-no-user-config", "-no-reboot"],
    ["-display", "none"],
    ["-machine", "q35,sata=off,smbus=off,usb=off"],
    ["-accel", "tcg,thread=multi,tb-size=512"],
    ["-cpu", "EPYC,+svm,+npt"],
    ["-smp", `${cpus}`],
    ["-m", `${memoryMib}`],
    ["-kernel", join(server, "vmlinuz")],
    ["-initrd", join(server, "initrd")],
    ["-append", "console=ttyS0 quiet root=/dev/vda rw init=/outer-init panic=-1 mitigations=off"],
    ["-serial", `file:${consolePath}`],
    ...[join(server, "root.raw"), disk].map((file) => [
      "-drive",
      `file=${file},format=raw,if=virtio,snapshot=on,cache=unsafe`,
    ]),
    ["-device", "virtio-rng-pci"],
    ["-device", "virtio-serial-pci"],
    ["-chardev", `socket,id=orders,path=${socketPath},server=on,wait=off`],
    ["-device", "virtserialport,chardev=orders,name=orders"],
  ].flat()
}

/** Runs orders one after the other: each prints its output, then a line with the mark and its exit code. */
class Orders {
  readonly #socket: Bun.Socket
  readonly #lives: () => boolean
  readonly #said: () => string
  #text = ""
  #onLine: ((line: string) => void) | undefined
  #status: string | undefined

  private constructor(socket: Bun.Socket, lives: () => boolean, said: () => string) {
    this.#socket = socket
    this.#lives = lives
    this.#said = said
  }

  static async open(path: string, lives: () => boolean, said: () => string): Promise<Orders> {
    let orders: Orders | undefined
    const decoder = new TextDecoder()
    await until("the outer machine's port is there", async () => {
      if (!lives()) throw new Error(`the outer machine did not start: ${said()}`)
      try {
        const socket = await Bun.connect({
          unix: path,
          socket: { data: (_, bytes) => orders?.take(decoder.decode(bytes, { stream: true })), error() {} },
        })
        orders = new Orders(socket, lives, said)
        return true
      } catch {
        return false
      }
    })
    if (orders === undefined) throw new Error("no connection to the outer machine")
    return orders
  }

  take(text: string): void {
    const lines = (this.#text + text).split("\n")
    this.#text = lines.pop() ?? ""
    for (const line of lines)
      if (line.startsWith("\x1e ")) this.#status = line.slice(2)
      else this.#onLine?.(line)
  }

  async run(
    order: string,
    options: { deadlineMs: number; onLine?: (line: string) => void },
  ): Promise<number> {
    this.#status = undefined
    this.#onLine = options.onLine
    this.#socket.write(`${order}\n`)
    return Number(await this.answer(options))
  }

  async answer({ deadlineMs }: { deadlineMs: number }): Promise<string> {
    const answered = () => {
      if (!this.#lives()) throw new Error(`the outer machine ended: ${this.#said()}`)
      return this.#status !== undefined
    }
    await until(`the outer machine answers`, answered, { deadlineMs })
    return this.#status ?? ""
  }

  close(): void {
    this.#socket.end()
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return ""
    throw error
  }
}
