/**
 * What a daemon checks of kernels and images before it uses them. A kernel is read through at its first use, in 40 ms. An image is a
 * gigabyte: nobody waits for it as long as its file is the one that was found whole last, and it is read through again beside their work.
 * The answer holds until another file is there, as after `bhatti init`.
 */
import type { AppError } from "../contract/errors.ts"
import { type InstalledImage, type InstalledKernel, readImage, readKernel } from "./artifacts.ts"
import { damaged, damageOf } from "./manifest.ts"
import { identityOf, isAsProven, proveDisk } from "./proven-disk.ts"

/** Between parts of 4 MiB, so that whoever starts sandboxes meanwhile does not notice. */
const pauseMs = 10
/** A daemon that has just started has better things to do. */
const delayMs = 1500

type Look = { identity: string; proof: Promise<AppError | undefined>; found?: AppError; isAwaited: boolean }

export class ArtifactChecks {
  readonly #dataDir: string
  readonly #onDamage: (error: AppError) => void
  readonly #looks = new Map<string, Look>()

  /** `onDamage` is told once of each file. */
  constructor(dataDir: string, onDamage: (error: AppError) => void) {
    this.#dataDir = dataDir
    this.#onDamage = onDamage
  }

  /** Throws unless it is whole. */
  async kernel<K extends InstalledKernel>(kernel: K): Promise<K> {
    const identity = `${identityOf(kernel.vmlinux)} ${identityOf(kernel.initramfs)}`
    await this.#look(kernel.vmlinux, identity, () => ({
      proof: damageOf(readKernel(this.#dataDir, { hash: kernel.hash, check: "digests" })),
      isAwaited: true,
    }))
    return kernel
  }

  /** Throws if it is known to be damaged, or found so where its file is not the one that was found whole last. */
  async image<I extends InstalledImage>(image: I): Promise<I> {
    await this.#lookAt(image)
    return image
  }

  #lookAt({ file, digest }: InstalledImage): Promise<Look> {
    const identity = identityOf(file)
    return this.#look(file, `${identity}`, () => {
      const isAwaited = !isAsProven(file, digest)
      const pause = isAwaited ? undefined : () => Bun.sleep(pauseMs)
      const proof = Bun.sleep(isAwaited ? 0 : delayMs)
        .then(() => proveDisk(file, digest, pause ? { pause } : {}))
        .then((isWhole) =>
          isWhole || identityOf(file) !== identity ? undefined : damaged(this.#dataDir, file),
        )
      return { proof, isAwaited }
    })
  }

  /** One by its hash. `isReadThrough`: the answer waits until all of it was read. */
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
        // A file that cannot be read is told by who waits, and looked at anew.
        () => this.#looks.delete(key),
      )
    }
    const error = look.isAwaited ? await look.proof : look.found
    if (error) throw error
    return look
  }
}
