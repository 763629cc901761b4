/**
 * The view of the host that a QEMU process gets: a root directory with its program and the libraries and firmware
 * it opens, and no more. The directory is built once per build of QEMU and its libraries, as copies, so that an
 * upgrade of the host's packages does not affect running machines. The launcher that puts QEMU there is `jail/`.
 */

import { constants } from "node:fs"
import { chmod, copyFile, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"

export type Jail = {
  /** The program that starts QEMU. */
  launcher: string
  root: string
}

/** Device nodes that can be visible in the root. */
const devices = ["/dev/null", "/dev/kvm"]
/** QEMU loads its emulator from the first of these if it is not built in. */
const moduleDirectories = ["/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu", "/usr/lib/qemu"]
const moduleName = "accel-tcg-x86_64.so"
/** Firmware that our kind of machine opens, each file in one of the directories. */
const firmware = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"]
const firmwareDirectories = ["/usr/share/qemu", "/usr/share/seabios"]
const libraryIndex = "/etc/ld.so.cache"

export async function prepareJail(options: {
  dataDir: string
  program: string
  /** The launcher that the build produced. */
  launcher: string
}): Promise<Jail> {
  const directory = join(options.dataDir, "jail")
  const files = await filesOf(options.program)
  const launcher = await Bun.file(options.launcher).bytes()
  const id = await identityOf(files, launcher)
  const jail = { launcher: join(directory, id, "launcher"), root: join(directory, id, "root") }

  await mkdir(directory, { recursive: true, mode: 0o700 })
  const known = await readdir(directory)
  if (!known.includes(id)) {
    const beside = join(directory, `part-${process.pid}`)
    await rm(beside, { recursive: true, force: true })
    await mkdir(beside, { mode: 0o700 })
    await fillRoot(join(beside, "root"), files)
    await writeFile(join(beside, "launcher"), launcher)
    await chmod(join(beside, "launcher"), 0o700)
    // A crash of the host must not leave a complete-looking name with a partial library.
    Bun.spawnSync(["sync", "--file-system", beside])
    await rename(beside, join(directory, id))
  }
  // Machines started in another root keep it through their own mounts.
  for (const name of known) if (name !== id) await rm(join(directory, name), { recursive: true, force: true })
  return jail
}

async function filesOf(program: string): Promise<string[]> {
  const [module, ...rest] = [
    await firstOf(moduleDirectories, moduleName),
    ...(await Promise.all(firmware.map((name) => firstOf(firmwareDirectories, name)))),
    await firstOf(["/etc"], libraryIndex.slice("/etc/".length)),
  ]
  const programs = [program, ...(module === undefined ? [] : [module])]
  return [...new Set([...programs, ...librariesOf(programs), ...rest.filter((path) => path !== undefined)])]
}

function librariesOf(programs: string[]): string[] {
  const result = Bun.spawnSync(["ldd", ...programs], { timeout: 10_000, env: { PATH: "/usr/bin:/bin" } })
  const text = result.stdout.toString()
  if (result.exitCode !== 0 || text.includes("not found")) {
    throw new AppError("unavailable", "some of QEMU's libraries are missing", {
      hint: `see what is missing: ldd ${programs.join(" ")}`,
      retryable: false,
    })
  }
  return [...text.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path)
}

async function firstOf(directories: string[], name: string): Promise<string | undefined> {
  for (const directory of directories) {
    const path = join(directory, name)
    if (await Bun.file(path).exists()) return path
  }
  return undefined
}

async function identityOf(files: string[], launcher: Uint8Array): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256").update(launcher)
  for (const path of files) {
    const { size, mtimeMs, ino } = await stat(path)
    hash.update(`${path} ${size} ${mtimeMs} ${ino}\n`)
  }
  return hash.digest("hex").slice(0, 16)
}

/** Everything in it is readable by every user, whatever the umask: QEMU has its own user id. */
async function fillRoot(root: string, files: string[]): Promise<void> {
  const made = new Set<string>()
  const makeDirectory = async (path: string): Promise<void> => {
    if (made.has(path)) return
    if (path !== root) await makeDirectory(dirname(path))
    await mkdir(path)
    await chmod(path, 0o755)
    made.add(path)
  }
  await makeDirectory(root)
  for (const path of files) {
    const target = join(root, path)
    await makeDirectory(dirname(target))
    await copyFile(path, target, constants.COPYFILE_FICLONE)
    await chmod(target, 0o755)
  }
  await makeDirectory(join(root, "proc"))
  for (const path of devices) {
    await makeDirectory(dirname(join(root, path)))
    // Mount point for the device node.
    await writeFile(join(root, path), "")
  }
}
