/** Handlers of files and archives. */

import { AppError } from "@bhatti/contract/errors"
import { truncatedHeader } from "@bhatti/contract/limits"
import {
  listFiles,
  makeDirectory,
  moveFile,
  readArchive,
  readFile,
  removeFile,
  statFile,
  writeArchive,
  writeFile,
} from "../../core/files.ts"
import { bytesReply } from "../bytes.ts"
import type { Handlers } from "../context.ts"
import { declaredLength } from "../input.ts"
import { sectionOf } from "../lines.ts"
import { viewFile } from "../views/file.ts"

export const files = {
  async readFile({ core, account, revoked, params, request }, { query }) {
    if (request.method === "HEAD") {
      const { size, mode, type } = await statFile(core, account, params.id, query.path)
      const headers = {
        "x-file-size": `${size}`,
        "x-file-mode": mode,
        "x-file-isdir": `${type === "directory"}`,
      }
      return new Response(null, { headers })
    }
    if (query.stat === "true") return viewFile(await statFile(core, account, params.id, query.path))
    if (query.ls === "true") {
      const { files, isTruncated } = await listFiles(core, account, params.id, query.path)
      return Response.json(files.map(viewFile), { headers: isTruncated ? { [truncatedHeader]: "true" } : {} })
    }
    const download = await readFile(core, account, params.id, query.path)
    const file = await download.file
    const headers = { "x-file-size": `${file.size}`, "x-file-mode": file.mode }
    const { offset, limit, max_bytes: maxBytes } = query
    const isWhole = offset === undefined && limit === undefined && maxBytes === undefined
    const source = isWhole ? download : sectionOf(download, { offset, limit, maxBytes })
    return bytesReply(source, { headers, revoked, log: core.log })
  },

  async writeFile({ core, account, revoked, params, request, body }, { query }) {
    for (const name of ["content-range", "content-encoding"]) {
      if ((request.headers.get(name) ?? "identity") === "identity") continue
      throw new AppError("invalid", `a file is written as a whole and unencoded: ${name} is not supported`)
    }
    await writeFile(core, account, params.id, {
      path: query.path,
      mode: query.mode,
      owner: query.owner,
      size: declaredLength(request),
      body,
      signal: revoked,
    })
    return { status: "ok" }
  },

  async removeFile({ core, account, params }, { query }) {
    const recursive = query.recursive === "true"
    await removeFile(core, account, params.id, { path: query.path, recursive })
    return { status: "ok" }
  },

  async makeDirectory({ core, account, params }, { body }) {
    await makeDirectory(core, account, params.id, body)
    return { status: "ok" }
  },

  async moveFile({ core, account, params }, { body }) {
    await moveFile(core, account, params.id, body)
    return { status: "ok" }
  },

  async readArchive({ core, account, revoked, params }, { query }) {
    const archive = await readArchive(core, account, params.id, query.path)
    return bytesReply(archive, { headers: { "content-type": "application/x-tar" }, revoked, log: core.log })
  },

  async writeArchive({ core, account, revoked, params, body }, { query }) {
    const { entries, bytes } = await writeArchive(core, account, params.id, {
      path: query.path,
      owner: query.owner,
      body,
      signal: revoked,
    })
    return { status: "ok", entries, bytes }
  },
} satisfies Partial<Handlers>
