/** Encryption at rest with age. The key file lies beside the database, readable only by the daemon's user. */

import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption"
import { timeName } from "./copies.ts"

export class Vault {
  readonly #identity: string
  /** The public half of the key. */
  readonly recipient: string

  private constructor(identity: string, recipient: string) {
    this.#identity = identity
    this.recipient = recipient
  }

  static async fresh(): Promise<Vault> {
    return Vault.#of(await generateX25519Identity())
  }

  /**
   * Opens the key file, or makes it if missing. `recipient`: the key used so far, if known; `isNeeded`: existing
   * secrets depend on it, so another key is refused and no new one is made.
   */
  static async open(path: string, used: { recipient: string | null; isNeeded: boolean }): Promise<Vault> {
    const text = existsSync(path) ? readFileSync(path, "utf8").trim() : undefined
    const vault = text === undefined ? undefined : await Vault.#of(text).catch(() => undefined)
    if (used.isNeeded) {
      if (!vault) throw keyFault(path, text === undefined ? "is missing" : "is damaged")
      if (used.recipient !== null && vault.recipient !== used.recipient)
        throw keyFault(path, "is not the key that the stored secrets were encrypted with")
    }
    if (vault) {
      chmodSync(path, 0o600)
      return vault
    }
    if (text) renameSync(path, `${path}.damaged-${timeName(new Date())}`)
    const identity = await generateX25519Identity()
    const beside = `${path}.${process.pid}`
    writeFileSync(beside, `${identity}\n`, { mode: 0o600, flag: "wx" })
    renameSync(beside, path)
    return Vault.#of(identity)
  }

  static async #of(identity: string): Promise<Vault> {
    return new Vault(identity, await identityToRecipient(identity))
  }

  /** Only the holder of the key can make or check it. */
  mac(text: string): string {
    return new Bun.CryptoHasher("sha256", this.#identity).update(text).digest("hex")
  }

  async encrypt(text: string): Promise<Uint8Array> {
    const encrypter = new Encrypter()
    encrypter.addRecipient(this.recipient)
    return encrypter.encrypt(text)
  }

  async decrypt(bytes: Uint8Array): Promise<string> {
    const decrypter = new Decrypter()
    decrypter.addIdentity(this.#identity)
    try {
      return await decrypter.decrypt(bytes, "text")
    } catch (cause) {
      throw new AppError("unavailable", "a stored secret cannot be decrypted", {
        cause,
        hint: "age.key in the data directory is not the one it was encrypted with",
        retryable: false,
      })
    }
  }
}

function keyFault(path: string, fault: string): AppError {
  return new AppError(
    "unavailable",
    `${path} ${fault}, and secrets are stored that only the right key opens`,
    {
      hint: `nothing was changed. Put the key back from a backup; or give the stored secrets up: sudo bhatti admin recover --drop-secrets --data-dir ${dirname(path)}`,
      retryable: false,
    },
  )
}
