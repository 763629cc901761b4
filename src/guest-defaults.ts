/** Reads the operator's settings for all sandboxes; an invalid setting stops the daemon before it serves. */

import { X509Certificate } from "node:crypto"
import { readFileSync } from "node:fs"
import type { Config } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"

const certificates = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** Returns the settings in the shape that `core` takes. */
export function readGuestDefaults(config: Config) {
  const { guest_ca: path, guest_proxy: url, guest_no_proxy: exceptions } = config
  return {
    ...(path === undefined ? {} : { authority: readAuthority(path) }),
    ...(url === undefined ? {} : { proxy: { url, exceptions } }),
  }
}

function readAuthority(path: string): { pem: string; digest: string } {
  try {
    const found = readFileSync(path, "utf8").match(certificates) ?? []
    if (found.length === 0) throw new Error("no certificate is in it")
    for (const one of found) new X509Certificate(one)
    const pem = `${found.join("\n")}\n`
    return { pem, digest: new Bun.CryptoHasher("sha256").update(pem).digest("hex").slice(0, 16) }
  } catch (cause) {
    throw new AppError("invalid", `guest_ca: ${path} cannot be used`, {
      cause,
      hint: "it must be a file with certificates in PEM form that the daemon can read",
      retryable: false,
    })
  }
}
