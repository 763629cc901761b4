/** The certificate that the configuration names: read, proved to fit its key, and watched for a newer one. */

import { createPrivateKey, X509Certificate } from "node:crypto"
import { readFileSync, statSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"

export type CertificatePaths = { certPath: string; keyPath: string }
export type Certificate = { cert: Buffer; key: Buffer }

export function readCertificate({ certPath, keyPath }: CertificatePaths): Certificate {
  try {
    const cert = readFileSync(certPath)
    const key = readFileSync(keyPath)
    if (new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) return { cert, key }
  } catch (cause) {
    throw new AppError("invalid", `cannot use the certificate ${certPath} with the key ${keyPath}`, { cause })
  }
  throw new AppError("invalid", `the key ${keyPath} does not belong to the certificate ${certPath}`)
}

/** Changes when the files change; undefined while a file is missing, as during a replacement. */
export function stampOf(paths: CertificatePaths): string | undefined {
  const [cert, key] = [paths.certPath, paths.keyPath].map((path) => statSync(path, { throwIfNoEntry: false }))
  return cert && key && `${cert.mtimeMs} ${cert.ino} ${key.mtimeMs} ${key.ino}`
}
