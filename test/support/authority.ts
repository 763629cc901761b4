/** A certificate authority of one's own for tests, made by openssl. */

import { readFileSync } from "node:fs"
import { join } from "node:path"

/** In `directory`: an authority, and a certificate of it for localhost and 127.0.0.1. */
export function makeAuthority(directory: string): { caFile: string; cert: string; key: string } {
  const script = `
    ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl req -x509 $ec -days 2 -keyout ca.key -out ca.pem -subj /CN=ours -addext basicConstraints=critical,CA:TRUE
    openssl req $ec -keyout own.key -out own.csr -subj /CN=daemon
    echo subjectAltName=DNS:localhost,IP:127.0.0.1 >names
    openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out own.pem -extfile names`
  const made = Bun.spawnSync(["sh", "-ec", script], { cwd: directory, stderr: "pipe" })
  if (made.exitCode !== 0) throw new Error(made.stderr.toString())
  const read = (name: string) => readFileSync(join(directory, name), "utf8")
  return { caFile: join(directory, "ca.pem"), cert: read("own.pem"), key: read("own.key") }
}
