/**
 * Checks kernels and images before the daemon uses them. Requests do not wait while the files are those last verified
 * whole; they are read again in the background. A result holds until a file is replaced, for example by `bhatti init`.
 */
import type { AppError } from "@bhatti/contract/errors"
import { type InstalledImage, type InstalledKernel, readImage } from "./artifacts.ts"
import type { InstalledKit } from "./kits.ts"
import { damaged } from "./manifest.ts"
import { identityOf, isVerified, verifyDisk } from "./verified-disk.ts"
import { identityOfKernel, isKernelVerified, verifyKernel } from "./verified-kernel.ts"

/** Pause between parts of 4 MiB, so that the check does not slow down sandboxes that start meanwhile. */
const pauseMs = 10
/** A daemon that has just started has more urgent work. */
const delayMs = 1500

type Look = { identity: string; proof: Promise<AppError | undefined>; found?: AppError; isAwaited: boolean }

export class ArtifactChecks {
  readonly #dataDir: string
  readonly #onDamage: (error: AppError) => void
  readonly #looks = new Map<string, Look>()

  /** `onDamage` is called once for each damaged file. */
  constructor(dataDir: string, onDamage: (error: AppError) => void) {
    this.#dataDir = dataDir
    this.#onDamage = onDamage
  }

  /** Throws if the kernel is known to be damaged, or if its files are not those last verified and are damaged. */
  async kernel<K extends InstalledKernel>(kernel: K): Promise<K> {
    await this.#look(kernel.vmlinux, identityOfKernel(kernel), () => {
      const isAwaited = !isKernelVerified(kernel)
      const proof = Bun.sleep(isAwaited ? 0 : delayMs).then(() => verifyKernel(this.#dataDir, kernel))
      return { proof, isAwaited }
    })
    return kernel
  }

  /**
   * Throws if the image is known to be damaged, or if its file is not the one last verified and turns out to be
   * damaged.
   */
  async image<I extends InstalledImage>(image: I): Promise<I> {
    await this.#lookAt(image)
    return image
  }

  /** The same for a kit. */
  async kit(kit: InstalledKit): Promise<InstalledKit> {
    await this.#lookAt(kit)
    return kit
  }

  #lookAt({ file, digest }: { file: string; digest: string }): Promise<Look> {
    const identity = identityOf(file)
    return this.#look(file, `${identity}`, () => {
      const isAwaited = !isVerified(file, digest)
      const pause = isAwaited ? undefined : () => Bun.sleep(pauseMs)
      const proof = Bun.sleep(isAwaited ? 0 : delayMs)
        .then(() => verifyDisk(file, digest, pause ? { pause } : {}))
        .then((isWhole) =>
          isWhole || identityOf(file) !== identity ? undefined : damaged(this.#dataDir, file),
        )
      return { proof, isAwaited }
    })
  }

  /** Returns an image by its hash. With `isReadThrough`, waits until the whole image has been read. */
  async imageOf(
    { name, hash }: { name: string; hash: string },
    { isReadThrough }: { isReadThrough?: boolean } = {},
  ): Promise<void> {
    const look = await this.#lookAt(await readImage(this.#dataDir, name, { hash }))
    const error = isReadThrough ? await look.proof : undefined
    if (error) throw error
  }

  async #look(key: string, identity: string, begin: () => Pick<Look, "proof" | "isAwaited">): Promise<Look> {
    let look = this.#looks.get(key)
    if (look?.identity !== identity) {
      const begun: Look = { identity, ...begin() }
      look = begun
      this.#looks.set(key, begun)
      begun.proof.then(
        (error) => {
          if (error === undefined) return
          begun.found = error
          this.#onDamage(error)
        },
        // An unreadable file fails the requests that wait for it, and the next request checks it again.
        () => this.#looks.delete(key),
      )
    }
    const error = look.isAwaited ? await look.proof : look.found
    if (error) throw error
    return look
  }
}
