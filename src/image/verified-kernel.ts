/**
 * A kernel that was found whole has a mark, with which a daemon's start need not wait for its digests. The mark lies
 * beside the kernel's directory, since the directory's time tells when the kernel was installed. Anything wrong with
 * it only means that the kernel is read before its use.
 */
import { statSync } from "node:fs"
import { dirname } from "node:path"
import type { AppError } from "@bhatti/contract/errors"
import { type InstalledKernel, readKernel } from "./artifacts.ts"
import { damageOf } from "./manifest.ts"
import { readMark, writeMark } from "./verified-disk.ts"

/** Changes with every write to one of its files, every replacement, and every change of times or links. */
export function identityOfKernel({ vmlinux, initramfs }: InstalledKernel): string {
  const identities = [vmlinux, initramfs].map((file) => {
    const stat = statSync(file, { throwIfNoEntry: false, bigint: true })
    return stat ? `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}` : "missing"
  })
  return identities.join(", ")
}

export function isKernelVerified(kernel: InstalledKernel): boolean {
  const mark = readMark(dirname(kernel.vmlinux))
  return mark?.digest === kernel.hash && mark.identity === identityOfKernel(kernel)
}

/** Reads the whole kernel. Returns the error if it is damaged. */
export async function verifyKernel(dataDir: string, kernel: InstalledKernel): Promise<AppError | undefined> {
  const identity = identityOfKernel(kernel)
  const error = await damageOf(readKernel(dataDir, { hash: kernel.hash, check: "digests" }))
  // A file that was replaced meanwhile is another one.
  if (identityOfKernel(kernel) !== identity) return undefined
  if (error === undefined && !isKernelVerified(kernel))
    await writeMark(dirname(kernel.vmlinux), { digest: kernel.hash, identity })
  return error
}
