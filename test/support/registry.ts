/** A real registry on loopback, Debian's docker-registry, and images made for it byte by byte. */

import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { pack } from "tar-stream"
import { until } from "./installation.ts"
import { startTokenServer, type TokenServer, tokenIssuer, tokenService } from "./token-server.ts"

const unpacked = "/var/cache/bhatti/docker-registry/usr/bin/docker-registry"

/** Undefined where the tests' package is not installed. */
export const registryProgram = Bun.which("docker-registry") ?? (existsSync(unpacked) ? unpacked : undefined)

export type TestRegistry = {
  /** With the port. */
  host: string
  /** Certificates to trust; undefined: it is a plain one. */
  caFile: string | undefined
  /** Requests for layers and configurations so far. */
  blobRequests(): number
  push(image: BuiltImage, tag: string, options?: { arch?: string }): Promise<void>
  tokens: TokenServer | undefined
  /** Its own files. */
  directory: string
} & AsyncDisposable

export const testLogin = { username: "tester", password: "s3cret-of-the-test" }

/** With `withTokens` its logins are asked at a server of tokens, which is started with it. */
export async function startRegistry({
  isSecured,
  withTokens = false,
}: {
  isSecured: boolean
  withTokens?: boolean
}): Promise<TestRegistry> {
  if (registryProgram === undefined) throw new Error("docker-registry is not installed")
  const directory = mkdtempSync("/tmp/bhatti-registry-")
  const port = freePort()
  const host = `127.0.0.1:${port}`
  const log = join(directory, "log")
  const caFile = isSecured ? makeCertificate(directory) : undefined
  const tokens = withTokens ? startTokenServer(directory, testLogin) : undefined
  writeFileSync(join(directory, "config.yml"), await configText({ directory, host, isSecured, tokens }))
  const child = Bun.spawn([registryProgram, "serve", join(directory, "config.yml")], {
    stdin: "ignore",
    stdout: Bun.file(log),
    stderr: "ignore",
    env: { PATH: process.env["PATH"] ?? "", OTEL_TRACES_EXPORTER: "none" },
  })
  const scheme = isSecured ? "https" : "http"
  await until("the registry answers", async () => {
    const answer = await fetch(`${scheme}://${host}/v2/`, { tls: { rejectUnauthorized: false } }).catch(
      () => null,
    )
    return answer !== null
  })
  const read = () => readFileSync(log, "utf8")
  return {
    host,
    caFile,
    directory,
    tokens,
    blobRequests: () =>
      read()
        .split("\n")
        .filter((line) => /"GET \/v2\/[^ ]*\/blobs\//.test(line)).length,
    async push(image, tag) {
      const login = isSecured ? ["--dest-creds", `${testLogin.username}:${testLogin.password}`] : []
      const flags = ["--dest-tls-verify=false", "--all", "--preserve-digests", ...login]
      const push = Bun.spawnSync([
        "skopeo",
        "copy",
        ...flags,
        `oci:${image.layout}:image`,
        `docker://${host}/${tag}`,
      ])
      if (push.exitCode !== 0) throw new Error(push.stderr.toString())
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL")
      await child.exited
      await tokens?.[Symbol.asyncDispose]()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  return port
}

async function configText(options: {
  directory: string
  host: string
  isSecured: boolean
  tokens: TokenServer | undefined
}): Promise<string> {
  const { directory, host, isSecured, tokens } = options
  const tls = `  tls:\n    certificate: ${directory}/cert.pem\n    key: ${directory}/key.pem\n`
  const lines = [
    `realm: https://${tokens?.host}/token`,
    `service: ${tokenService}`,
    `issuer: ${tokenIssuer}`,
    `rootcertbundle: ${directory}/cert.pem`,
  ]
  const token = `auth:\n  token:\n${lines.map((line) => `    ${line}\n`).join("")}`
  const password = `auth:\n  htpasswd:\n    realm: test\n    path: ${directory}/htpasswd\n`
  const auth = tokens ? token : password
  if (isSecured) {
    const hash = await Bun.password.hash(testLogin.password, { algorithm: "bcrypt", cost: 4 })
    writeFileSync(join(directory, "htpasswd"), `${testLogin.username}:${hash}\n`)
  }
  return `version: 0.1
log:
  accesslog: { disabled: false }
storage:
  filesystem: { rootdirectory: ${directory}/storage }
http:
  addr: ${host}
${isSecured ? tls : ""}${isSecured ? auth : ""}`
}

function makeCertificate(directory: string): string {
  const made = Bun.spawnSync([
    ...[
      "openssl",
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-days",
      "2",
    ],
    ...["-keyout", `${directory}/key.pem`, "-out", `${directory}/cert.pem`],
    ...["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"],
  ])
  if (made.exitCode !== 0) throw new Error(made.stderr.toString())
  return join(directory, "cert.pem")
}

export type Files = Readonly<Record<string, string | Uint8Array>>
export type BuiltImage = { layout: string; manifestDigest: string; layers: string[] }

type Wanted = { layers: readonly Files[]; config?: Record<string, unknown>; arch?: string }

/** Makes an image as an OCI layout: a gzipped layer for each record of paths and contents. */
export async function buildImage(layout: string, ...platforms: Wanted[]): Promise<BuiltImage> {
  const blobs = join(layout, "blobs", "sha256")
  mkdirSync(blobs, { recursive: true })
  const put = (bytes: Uint8Array) => {
    const hex = createHash("sha256").update(bytes).digest("hex")
    writeFileSync(join(blobs, hex), bytes)
    return { digest: `sha256:${hex}`, size: bytes.length }
  }
  const manifests = []
  for (const { layers, config = {}, arch = "amd64" } of platforms) {
    const archives = await Promise.all(layers.map(archiveOf))
    const diff_ids = archives.map((tar) => `sha256:${createHash("sha256").update(tar).digest("hex")}`)
    const text = { architecture: arch, os: "linux", config, rootfs: { type: "layers", diff_ids } }
    const manifest = {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: {
        mediaType: "application/vnd.oci.image.config.v1+json",
        ...put(Buffer.from(JSON.stringify(text))),
      },
      layers: archives.map((tar) => ({
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
        ...put(gzipSync(tar)),
      })),
    }
    const document = { mediaType: manifest.mediaType, ...put(Buffer.from(JSON.stringify(manifest))) }
    manifests.push({ ...document, layers: manifest.layers.map(({ digest }) => digest), arch })
  }
  const entries = manifests.map(({ layers: _, arch, ...document }) => ({
    ...document,
    platform: { os: "linux", architecture: arch },
  }))
  const [only] = entries
  const several = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: entries,
  }
  const top =
    entries.length === 1 && only
      ? only
      : { mediaType: several.mediaType, ...put(Buffer.from(JSON.stringify(several))) }
  const named = { ...top, annotations: { "org.opencontainers.image.ref.name": "image" } }
  writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [named] }))
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}')
  return { layout, manifestDigest: only?.digest ?? "", layers: manifests[0]?.layers ?? [] }
}

async function archiveOf(files: Files): Promise<Buffer> {
  const archive = pack()
  for (const [path, content] of Object.entries(files)) {
    if (path.endsWith("/")) archive.entry({ name: path, type: "directory", mode: 0o755, mtime: new Date(0) })
    else archive.entry({ name: path, mode: 0o755, mtime: new Date(0) }, Buffer.from(content))
  }
  archive.finalize()
  const chunks: Uint8Array[] = []
  for await (const chunk of archive) chunks.push(chunk as Uint8Array)
  return Buffer.concat(chunks)
}
