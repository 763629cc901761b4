/** buildah as an oracle: the tree that it gives for a Dockerfile, without a container. */

import { lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs"
import { join } from "node:path"
import { readExt4Tree } from "./ext4-tree.ts"

/** Each entry as a text, without times. */
export type BuiltTree = Map<string, string>

/** A Dockerfile of ten steps in two stages. */
export const tenSteps = `ARG V=1
FROM base AS tools
RUN mkdir -p /opt/tools/bin && echo tool > /opt/tools/bin/tool && chmod 4755 /opt/tools/bin/tool
RUN ln -s bin/tool /opt/tools/link && ln /opt/tools/bin/tool /opt/tools/hard && chown -R 5:6 /opt/tools
FROM base
ARG V
ENV VERSION=$V
WORKDIR /srv/app
COPY src .
COPY --chown=1001:1002 --chmod=640 conf/*.conf /etc/app/
COPY --from=tools /opt/tools /usr/lib/tools
COPY --from=tools /opt/tools/bin/tool /usr/bin/
RUN echo $VERSION > version && rm run.sh && mkdir -m 1777 shared
RUN chown ann version && touch empty && mkdir -p a/b/c
USER ann
RUN echo as $(id -u) > /srv/app/shared/me
CMD ["/bin/cat", "/srv/app/version", "/srv/app/shared/me"]
`

export const buildahIsThere: boolean = Bun.which("buildah") !== null && process.getuid?.() === 0

/** The archive is the image `base`. */
export function buildWithBuildah(baseArchive: string, directory: string, options: string[]): BuiltTree {
  const place = mkdtempSync("/tmp/bhatti-buildah-")
  const buildah = (...words: string[]) => {
    const [verb = "", ...rest] = words
    const storage = [
      "--storage-driver",
      "vfs",
      "--root",
      join(place, "root"),
      "--runroot",
      join(place, "run"),
    ]
    const { exitCode, stdout, stderr } = Bun.spawnSync(["buildah", ...storage, verb, ...rest])
    if (exitCode !== 0) throw new Error(`buildah ${words.join(" ")}: ${stderr}`)
    return stdout.toString().trim()
  }
  try {
    const made = buildah("from", "scratch")
    buildah("add", made, baseArchive, "/")
    buildah("commit", "--quiet", made, "localhost/base")
    buildah(
      "bud",
      "--quiet",
      "--isolation",
      "chroot",
      "--pull=never",
      ...options,
      "-t",
      "localhost/out",
      directory,
    )
    const out = buildah("from", "--pull=never", "localhost/out")
    return treeBelow(buildah("mount", out))
  } finally {
    Bun.spawnSync([
      "buildah",
      "--storage-driver",
      "vfs",
      "--root",
      join(place, "root"),
      "--runroot",
      join(place, "run"),
      "rm",
      "-a",
    ])
    rmSync(place, { recursive: true, force: true })
  }
}

function treeBelow(root: string): BuiltTree {
  const tree: BuiltTree = new Map()
  const visit = (name: string) => {
    for (const child of readdirSync(join(root, name))) {
      const path = join(name, child)
      const found = lstatSync(join(root, path))
      const kind = found.isDirectory() ? "directory" : found.isSymbolicLink() ? "symlink" : "file"
      const content =
        kind === "file"
          ? readFileSync(join(root, path))
          : kind === "symlink"
            ? Buffer.from(readlinkSync(join(root, path)))
            : undefined
      tree.set(
        path,
        [
          kind,
          kind === "symlink" ? "" : (found.mode & 0o7777).toString(8),
          `${found.uid}:${found.gid}`,
          content === undefined ? "" : Bun.hash(content).toString(16),
          "",
        ].join(" "),
      )
      if (kind === "directory") visit(path)
    }
  }
  visit("")
  return tree
}

/** The tree of an image's disk. */
export function treeOf(disk: string): BuiltTree {
  const entries = [...readExt4Tree(disk)].filter(([name]) => name !== "")
  return new Map(
    entries.map(([name, { kind, mode, uid, gid, content, attributes }]) => [
      Buffer.from(name, "latin1").toString(),
      [
        kind,
        kind === "symlink" ? "" : (mode & 0o7777).toString(8),
        `${uid}:${gid}`,
        kind === "file" || kind === "symlink" ? Bun.hash(content ?? "").toString(16) : "",
        Object.keys(attributes).join(),
      ].join(" "),
    ]),
  )
}
