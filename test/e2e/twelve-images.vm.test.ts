/**
 * Twelve kinds of images against Debian's docker-registry: each is pulled, booted and run, and its tree is the one that
 * podman makes, entry by entry. Takes minutes, so only the long form runs it; BHATTI_TEST_IMAGES names a directory with
 * debian.tar and big.tar.gz for the two that take longest to make.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import type { Image } from "@bhatti/contract/image"
import { type Installation, install } from "../support/installation.ts"
import { addBusybox, buildGo, succeed } from "../support/made-image.ts"
import { registryProgram, startRegistry, type TestRegistry, testLogin } from "../support/registry.ts"
import { type TarEntry, tarOf } from "../support/tar-bytes.ts"
import { directoryLines, diskLines } from "../support/tree-lines.ts"

const isLong = process.env["BHATTI_TEST_LONG"] !== undefined
const canRun = registryProgram !== undefined && Bun.which("podman") !== null
const made = process.env["BHATTI_TEST_IMAGES"] ?? ""

type Kind = {
  name: string
  layers: Buffer[]
  config?: object
  run: string[]
  says: string
  isPlain?: boolean
}

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
const accessList =
  "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
  "\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  ...{ name, type: "5", mode: 0o755, mtime: 1000 },
  ...more,
})
const file = (name: string, content: Uint8Array | string, more: Partial<TarEntry> = {}): TarEntry => ({
  ...{ name, content, mode: 0o755, mtime: 1000 },
  ...more,
})

describe.skipIf(!isLong || !canRun)("the tree of", () => {
  let own: Installation
  let secured: TestRegistry
  let plain: TestRegistry
  let work: string
  let busybox: Buffer
  let hello: Buffer
  const rows: string[] = []

  beforeAll(async () => {
    work = mkdtempSync("/tmp/bhatti-twelve-")
    ;[secured, plain] = await Promise.all([
      startRegistry({ isSecured: true }),
      startRegistry({ isSecured: false }),
    ])
    own = await install({
      config: `registries:
  - { host: "${secured.host}", ca_file: ${secured.caFile} }
  - { host: "${plain.host}", insecure: true }
`,
    })
    addBusybox(own.dataDir, work, "tree")
    busybox = readFileSync(join(work, "tree", "busybox"))
    buildGo('package main\nimport "fmt"\nfunc main() { fmt.Println("hello") }\n', join(work, "hello"))
    hello = readFileSync(join(work, "hello"))
    mkdirSync(join(work, "certs"))
    succeed(["cp", secured.caFile ?? "", join(work, "certs", "ca.crt")])
  }, 600_000)
  afterAll(async () => {
    console.log(
      ["image | podman pull | ours | podman run | ours, first | again | podman MB | ours MB", ...rows].join(
        "\n",
      ),
    )
    await own?.[Symbol.asyncDispose]()
    for (const registry of [secured, plain]) await registry?.[Symbol.asyncDispose]()
    rmSync(work, { recursive: true, force: true })
  }, 120_000)

  const shell = (script: string) => ["/bin/sh", "-c", script]
  const bin = () => tarOf([folder("./"), folder("bin"), file("bin/sh", busybox)])

  function kinds(): Kind[] {
    const one = (
      name: string,
      layers: Buffer[],
      run: string[],
      says: string,
      more: Partial<Kind> = {},
    ): Kind => ({
      ...{ name, layers, run, says },
      ...more,
    })
    const passwd = file("etc/passwd", "nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n", { mode: 0o644 })
    const attributes = [
      folder("./"),
      file("ping", "elf", { pax: { "SCHILY.xattr.security.capability": capability } }),
      file("listed", "x", {
        mode: 0o754,
        pax: { "SCHILY.xattr.system.posix_acl_access": accessList, "SCHILY.xattr.user.a": "b" },
      }),
      folder("shared", { pax: { "SCHILY.xattr.system.posix_acl_default": accessList } }),
    ]
    const many = Array.from({ length: 59 }, (_, at) => tarOf([file(`l${at}`, `${at}`), file("top", `${at}`)]))
    const merged = [
      [
        folder("./"),
        folder("opt"),
        folder("opt/app"),
        file("opt/app/a", "a"),
        file("opt/link", "", { type: "1", linkname: "opt/app/a" }),
      ],
      [
        folder("opt"),
        folder("opt/app", { uid: 1000, mtime: 2000 }),
        { name: "opt/app/.wh..wh..opq" },
        file("opt/app/b", "b", { uid: 1000 }),
      ],
      [
        folder("opt"),
        { name: "opt/.wh.link" },
        file("opt/n\xffame", "odd"),
        { name: "null", type: "3", major: 1, minor: 3, mode: 0o666, mtime: 7 },
      ],
    ]
    const loader = "/lib/ld-musl-x86_64.so.1"
    return [
      one("scratch", [tarOf([folder("./"), file("hello", hello)])], ["/hello"], "hello\n"),
      one(
        "distroless",
        [
          tarOf([
            folder("./"),
            folder("etc"),
            passwd,
            folder("home"),
            folder("home/nonroot", { uid: 65532, gid: 65532 }),
          ]),
          tarOf([file("hello", hello)]),
        ],
        ["/hello"],
        "hello\n",
        { config: { User: "65532", WorkingDir: "/home/nonroot" } },
      ),
      one("busybox", [bin()], shell("echo busy"), "busy\n", { isPlain: true }),
      ...(existsSync(loader)
        ? [
            one(
              "musl",
              [bin(), tarOf([folder("lib"), file("lib/ld-musl-x86_64.so.1", readFileSync(loader))])],
              shell("echo musl"),
              "musl\n",
            ),
          ]
        : []),
      ...(existsSync(join(made, "debian.tar"))
        ? [
            one(
              "debian",
              [readFileSync(join(made, "debian.tar"))],
              shell("cat /etc/debian_version | cut -c1-2"),
              "12\n",
            ),
          ]
        : []),
      one("attributes", [bin(), tarOf(attributes)], shell("echo kept"), "kept\n", { isPlain: true }),
      one("layers", [bin(), ...many], shell("read -r x < /top || true; echo $x"), "58\n"),
      one(
        "platforms",
        [bin(), tarOf([file("amd64", "yes\n")])],
        shell("read -r x < /amd64; echo $x"),
        "yes\n",
      ),
      ...(existsSync(join(made, "big.tar.gz"))
        ? [
            one(
              "big",
              [bin(), readFileSync(join(made, "big.tar.gz"))],
              shell("[ -s /big ] && echo large"),
              "large\n",
            ),
          ]
        : []),
      one("no-passwd", [bin()], shell("cd; pwd"), "/\n", { config: { User: "root" } }),
      one("merged", [bin(), ...merged.map(tarOf)], shell("echo /opt/*"), "", { isPlain: true }),
    ]
  }

  function push(kind: Kind): string {
    const registry = kind.isPlain ? plain : secured
    const layout = mkdtempSync(join(work, `${kind.name}-`))
    const blobs = join(layout, "blobs", "sha256")
    mkdirSync(blobs, { recursive: true })
    const put = (bytes: Uint8Array) => {
      const hex = createHash("sha256").update(bytes).digest("hex")
      writeFileSync(join(blobs, hex), bytes)
      return { digest: `sha256:${hex}`, size: bytes.length }
    }
    const oci = "application/vnd.oci.image"
    const documentOf = (architecture: string) => {
      const layers = kind.layers.map((layer) => {
        const isPacked = layer[0] === 0x1f
        const stream = isPacked ? undefined : layer
        const diffId = stream
          ? `sha256:${createHash("sha256").update(stream).digest("hex")}`
          : `sha256:${Bun.spawnSync(["sh", "-c", `gzip -dc ${join(made, "big.tar.gz")} | sha256sum`])
              .stdout.toString()
              .slice(0, 64)}`
        return {
          diffId,
          mediaType: `${oci}.layer.v1.tar+gzip`,
          ...put(isPacked ? layer : gzipSync(layer, { level: 1 })),
        }
      })
      const rootfs = { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) }
      const config = put(
        Buffer.from(JSON.stringify({ architecture, os: "linux", config: kind.config ?? {}, rootfs })),
      )
      const manifest = {
        ...{ schemaVersion: 2, mediaType: `${oci}.manifest.v1+json` },
        config: { mediaType: `${oci}.config.v1+json`, ...config },
        layers: layers.map(({ diffId: _, ...layer }) => layer),
      }
      const document = put(Buffer.from(JSON.stringify(manifest)))
      return { mediaType: manifest.mediaType, ...document, platform: { os: "linux", architecture } }
    }
    const several = kind.name === "platforms" ? ["arm64", "amd64"] : ["amd64"]
    const documents = several.map(documentOf)
    const index = { schemaVersion: 2, mediaType: `${oci}.index.v1+json`, manifests: documents }
    const top =
      documents.length === 1
        ? documents[0]
        : { mediaType: index.mediaType, ...put(Buffer.from(JSON.stringify(index))) }
    const named = { ...top, annotations: { "org.opencontainers.image.ref.name": "image" } }
    writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [named] }))
    writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}')
    const login = kind.isPlain ? [] : ["--dest-creds", `${testLogin.username}:${testLogin.password}`]
    const ref = `${registry.host}/${kind.name}:1`
    succeed([
      "skopeo",
      "copy",
      "--quiet",
      "--all",
      "--preserve-digests",
      "--dest-tls-verify=false",
      ...login,
      `oci:${layout}:image`,
      `docker://${ref}`,
    ])
    rmSync(layout, { recursive: true })
    return ref
  }

  const bhatti = async (...args: string[]) => {
    const ran = await own.bhatti(args, { stdin: `${testLogin.username}:${testLogin.password}` })
    if (ran.exitCode !== 0)
      throw new Error(`bhatti ${args.join(" ")}: ${ran.stderr}\n${own.daemonLog().slice(-2000)}`)
    return ran
  }
  const timed = (command: string[]) => {
    const beginMs = performance.now()
    const { exitCode, stdout, stderr } = Bun.spawnSync(command)
    return { ms: performance.now() - beginMs, exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
  }
  const mibOf = (bytes: number) => Math.round(bytes / 1024 / 1024)
  const seconds = (ms: number) => (ms / 1000).toFixed(2)

  test("each of them is podman's, and each boots and runs", async () => {
    const failures: string[] = []
    for (const kind of kinds()) {
      try {
        await check(kind)
      } catch (error) {
        failures.push(`${kind.name}: ${(error as Error).message.slice(0, 3000)}`)
        await own.bhatti(["destroy", "-y", "one"])
      }
    }
    expect(failures).toEqual([])
  }, 3_000_000)

  async function check(kind: Kind): Promise<void> {
    const ref = push(kind)
    const storage = mkdtempSync(join(work, "podman-"))
    const flags = [
      `--root=${storage}/root`,
      `--runroot=${storage}/run`,
      "--storage-driver=vfs",
      "--events-backend=none",
    ]
    const access = kind.isPlain
      ? ["--tls-verify=false"]
      : [`--cert-dir=${join(work, "certs")}`, `--creds=${testLogin.username}:${testLogin.password}`]
    const theirs = timed(["podman", ...flags, "pull", "--quiet", ...access, ref])
    if (theirs.exitCode !== 0) throw new Error(`podman pull: ${theirs.stderr}`)
    const auth = kind.isPlain ? [] : ["--auth-stdin"]
    const ours = await bhatti("image", "pull", "-q", "--no-prepare", "--name", kind.name, ...auth, ref)
    const top = timed(["podman", ...flags, "image", "mount", ref]).stdout.trim()
    const disk = await diskOf(kind.name)
    expect(comparable(diskLines(disk))).toEqual(comparable(await directoryLines(top)))
    const runFlags = [
      "--network=none",
      "--log-driver=none",
      "--cgroups=disabled",
      "--ulimit=nofile=1024:1024",
      "--ulimit=nproc=1024:1024",
    ]
    const theirRun = timed(["podman", ...flags, "run", "--rm", ...runFlags, ref, ...kind.run])
    const first = await bhatti("create", "--name", "one", "--image", kind.name)
    const { stdout } = await bhatti("exec", "one", "--", ...kind.run)
    if (kind.says !== "") expect(stdout).toBe(kind.says)
    const again = await bhatti("run", "--rm", kind.name, ...kind.run)
    if (theirRun.exitCode === 0) expect(again.stdout).toBe(theirRun.stdout)
    await bhatti("destroy", "-y", "one")
    const podmanBytes = Number(timed(["du", "-s", "-B1", storage]).stdout.split("\t")[0])
    rows.push(
      [
        kind.name,
        seconds(theirs.ms),
        seconds(ours.ms),
        theirRun.exitCode === 0 ? seconds(theirRun.ms) : "-",
        seconds(first.ms),
        seconds(again.ms),
        mibOf(podmanBytes),
        mibOf(statSync(disk).blocks * 512),
      ].join(" | "),
    )
    timed(["podman", ...flags, "image", "unmount", "--all"])
    rmSync(storage, { recursive: true, force: true })
    await bhatti("image", "prune", "-y")
  }

  async function diskOf(name: string): Promise<string> {
    const { hash } = JSON.parse((await bhatti("image", "inspect", name, "--json")).stdout) as Image
    const images = join(own.dataDir, "images")
    const found = readdirSync(images).find((one) => existsSync(join(images, one, `${hash}.raw`)))
    return join(images, found ?? "", `${hash}.raw`)
  }

  /** podman touches the top directory of each image that it makes. */
  const comparable = (lines: string[]) =>
    lines.map((line) => (line.startsWith(" ") ? line.replace(/\d+ *$/, "") : line))
})
