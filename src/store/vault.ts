/** Encryption at rest with age: the key file lies beside the database, readable by the daemon's user only. */

import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { Decrypter, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption"
import { AppError } from "../contract/errors.ts"

export class Vault {
  readonly #identity: string

  constructor(identity: string) {
    this.#identity = identity
  }

  /** Makes the key file if it is missing. */
  static async open(path: string): Promise<Vault> {
    if (!existsSync(path)) {
      const beside = `${path}.${process.pid}`
      writeFileSync(beside, `${await generateX25519Identity()}\n`, { mode: 0o600, flag: "wx" })
      renameSync(beside, path)
    }
    chmodSync(path, 0o600)
    return new Vault(readFileSync(path, "utf8").trim())
  }

  async encrypt(text: string): Promise<Uint8Array> {
    const encrypter = new Encrypter()
    encrypter.addRecipient(await identityToRecipient(this.#identity))
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
