/**
 * The view of the host that a QEMU process gets: a root directory with its program and the libraries and firmware
 * it opens, and no more. The root is made once per build of QEMU, as copies, so that an upgrade of the host's packages
 * does not affect machines (`kept-qemu.ts`). The launcher that puts QEMU there is `jail/`.
 */

import { constants } from "node:fs"
import { chmod, copyFile, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises"
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
/** Changes with every library of the host, also with those that are not in the root. */
export const libraryIndex = "/etc/ld.so.cache"

/** Returns the path of the launcher's copy. `built` is the one that the build produced. */
export async function prepareLauncher(options: { dataDir: string; built: string }): Promise<string> {
  const directory = join(options.dataDir, "jail")
  const bytes = await Bun.file(options.built).bytes()
  const id = new Bun.CryptoHasher("sha256").update(bytes).digest("hex").slice(0, 16)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const known = await readdir(directory)
  if (!known.includes(id)) {
    const beside = join(directory, `part-${process.pid}`)
    await rm(beside, { recursive: true, force: true })
    await mkdir(beside, { mode: 0o700 })
    await writeFile(join(beside, "launcher"), bytes)
    await chmod(join(beside, "launcher"), 0o700)
    // A crash of the host must not leave a complete-looking name with a partial program.
    Bun.spawnSync(["sync", "--file-system", beside])
    await rename(beside, join(directory, id))
  }
  // Machines that were started from another root keep it through their own mounts.
  for (const name of known) if (name !== id) await rm(join(directory, name), { recursive: true, force: true })
  return join(directory, id, "launcher")
}

/** Everything that a machine of this program opens on the host. */
export async function filesOf(program: string): Promise<string[]> {
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

/** Everything in it is readable by every user, whatever the umask: QEMU has its own user id. */
export async function fillRoot(root: string, files: string[]): Promise<void> {
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
