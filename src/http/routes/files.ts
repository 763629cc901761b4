/** Handlers of files and archives. */

import { AppError } from "@bhatti/contract/errors"
import { truncatedHeader } from "@bhatti/contract/limits"
import { askGuest } from "../../core/ask-guest.ts"
import {
  makeDirectory,
  openArchive,
  openFile,
  readFileSection,
  setAttributes,
  writeArchive,
  writeFile,
} from "../../core/files.ts"
import { declaredLength } from "../../gate/read-body.ts"
import { bytesReply } from "../bytes.ts"
import type { Handlers } from "../context.ts"
import { chooseSection, fileHeaders, isKnownTo, rangeOf, sectionHeaders } from "../file-range.ts"
import { sectionOf } from "../lines.ts"
import { attributesFrom, attributesFromPairs, viewFile } from "../views/file.ts"

export const files = {
  async readFile({ core, account, revoked, params, request }, { query }) {
    const { path } = query
    const stat = () => askGuest(core, account, params.id, { op: "statFile", path })
    if (request.method === "HEAD") {
      const file = await stat()
      const headers = { ...fileHeaders(file), "x-file-isdir": `${file.type === "directory"}` }
      return new Response(null, { headers })
    }
    if (query.stat === "true") return viewFile(await stat())
    if (query.ls === "true") {
      const { files, isTruncated } = await askGuest(core, account, params.id, { op: "listFiles", path })
      return Response.json(files.map(viewFile), { headers: isTruncated ? { [truncatedHeader]: "true" } : {} })
    }
    const { offset, limit, max_bytes: maxBytes } = query
    const isInLines = offset !== undefined || limit !== undefined
    const isWhole = !isInLines && maxBytes === undefined
    const range = isWhole ? rangeOf(request.headers) : undefined
    const { download, section } = range
      ? await readFileSection(core, account, params.id, {
          path,
          choose: (file) => chooseSection(range, file),
        })
      : {
          download: await openFile(core, account, params.id, {
            op: "readFile",
            path,
            limit: isInLines ? undefined : maxBytes,
          }),
        }
    const file = await download.file
    const headers = fileHeaders(file)
    const reply = { revoked, log: core.log }
    if (isWhole && isKnownTo(request.headers, file)) {
      download.result.catch(() => undefined)
      download.close()
      return new Response(null, { status: 304, headers })
    }
    if (isInLines) return bytesReply(sectionOf(download, { offset, limit, maxBytes }), { headers, ...reply })
    if (!section) return bytesReply(download, { headers, ...reply })
    const partly = { status: 206, headers: { ...headers, ...sectionHeaders(file, section) } }
    return bytesReply(download, { ...partly, ...reply })
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
      attributes: query.attribute && attributesFromPairs(query.attribute),
      size: declaredLength(request),
      body,
      signal: revoked,
    })
    return { status: "ok" }
  },

  async setAttributes({ core, account, params }, { body: { path, set, remove } }) {
    const change = { path, set: attributesFrom(Object.entries(set)), remove }
    return viewFile(await setAttributes(core, account, params.id, change))
  },

  async removeFile({ core, account, params }, { query }) {
    const recursive = query.recursive === "true"
    await askGuest(core, account, params.id, { op: "removeFile", path: query.path, recursive })
    return { status: "ok" }
  },

  async makeDirectory({ core, account, params }, { body }) {
    await makeDirectory(core, account, params.id, body)
    return { status: "ok" }
  },

  async moveFile({ core, account, params }, { body }) {
    await askGuest(core, account, params.id, { op: "moveFile", ...body })
    return { status: "ok" }
  },

  async readArchive({ core, account, revoked, params }, { query }) {
    const archive = await openArchive(core, account, params.id, {
      op: "readArchive",
      path: query.path,
      ...(query.sparse === "true" && { sparse: true }),
    })
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
