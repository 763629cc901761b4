/**
 * The OpenAPI 3.1 description of the HTTP interface, generated from `api.ts`. The daemon serves it; docs/openapi.json
 * is a copy.
 */

import { z } from "zod"
import { api } from "./api.ts"
import type { Endpoint } from "./endpoint.ts"
import { errorStatus } from "./errors.ts"
import { ErrorBody } from "./system.ts"

type Json = Record<string, unknown>

export function openApi(about: { version: string }): Json {
  const components = new Components()
  const paths: Record<string, Json> = {}
  for (const [name, endpoint] of Object.entries<Endpoint>(api)) {
    const path = endpoint.path.replace(/:(\w+)/g, "{$1}")
    paths[path] = {
      ...paths[path],
      [endpoint.method.toLowerCase()]: operation({ name, endpoint, components }),
    }
  }
  const errorSchema = components.schema(ErrorBody, "output")
  return {
    openapi: "3.1.0",
    info: {
      title: "bhatti",
      version: about.version,
      description: "Isolated Linux sandboxes, each a real virtual machine.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    security: [{ key: [] }],
    paths,
    components: {
      securitySchemes: { key: { type: "http", scheme: "bearer", description: "An API key, `bht_…`" } },
      responses: {
        Error: {
          description: `Not done. The status follows from \`code\`: ${Object.entries(errorStatus)
            .map(([code, status]) => `${code} ${status}`)
            .join(", ")}.`,
          content: { "application/json": { schema: errorSchema } },
        },
      },
      schemas: components.schemas,
    },
  }
}

function operation(options: { name: string; endpoint: Endpoint; components: Components }): Json {
  const { name, endpoint, components } = options
  const parameters = [
    ...pathParameters(endpoint.path),
    ...queryParameters(endpoint.query, components),
    ...(endpoint.ranges ? rangeParameters : []),
  ]
  return {
    operationId: name,
    summary: endpoint.summary,
    ...(endpoint.isPublic ? { security: [] } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...requestBody(endpoint, components),
    ...(endpoint.socket === undefined
      ? {}
      : { description: socketText, ...socketSchemas(endpoint, components) }),
    responses: {
      ...(endpoint.existingStatus && {
        [endpoint.existingStatus]: {
          ...goodResponse(endpoint, components),
          description: "It already existed",
        },
      }),
      [endpoint.status]: goodResponse(endpoint, components),
      ...(endpoint.ranges && rangeResponses),
      default: { $ref: "#/components/responses/Error" },
    },
  }
}

const rangeParameters = [
  ["Range", "One range of bytes, such as bytes=0-499; several are answered with the whole file"],
  ["If-Range", "The ETag for which Range holds; another version is answered as a whole"],
  ["If-None-Match", "ETags that the client has"],
].map(([name, description]) => ({
  name,
  in: "header",
  required: false,
  description,
  schema: { type: "string" },
}))

const rangeResponses = {
  206: { description: "The range", content: { "application/octet-stream": { schema: {} } } },
  304: { description: "The client has this version" },
  416: { $ref: "#/components/responses/Error" },
}

const bytes = { "application/octet-stream": { schema: {} } }

function requestBody(endpoint: Endpoint, components: Components): Json {
  if (endpoint.bodyBytes) return { requestBody: { required: true, content: bytes } }
  if (endpoint.body === undefined) return {}
  return { requestBody: { required: true, content: jsonContent(components.schema(endpoint.body, "input")) } }
}

function goodResponse(endpoint: Endpoint, components: Components): Json {
  if (endpoint.socket !== undefined) return { description: "Switched to the WebSocket protocol" }
  if (endpoint.status === 204) return { description: "Done" }
  const hasJson = !(endpoint.reply instanceof z.ZodNever)
  return {
    description: "Done",
    content: {
      ...(hasJson ? jsonContent(components.schema(endpoint.reply, "output")) : {}),
      ...(endpoint.replyBytes ? bytes : {}),
      ...(endpoint.stream === undefined
        ? {}
        : {
            [endpoint.stream.accept]: {
              schema: components.schema(endpoint.stream.event, "output"),
              "x-stream": "one JSON value per line",
            },
          }),
    },
  }
}

const socketText =
  "A WebSocket. The client's first message is `start` as text, if there is one; then text messages are `client` and `server`, and binary ones carry bytes."

/** OpenAPI cannot describe a WebSocket, so its messages are in an extension. */
function socketSchemas({ socket }: Endpoint, components: Components): Json {
  if (socket === undefined) return {}
  return {
    "x-websocket": {
      ...(socket.start instanceof z.ZodNever ? {} : { start: components.schema(socket.start, "input") }),
      client: components.schema(socket.client, "input"),
      server: components.schema(socket.server, "output"),
    },
  }
}

function jsonContent(schema: Json): Json {
  return { "application/json": { schema } }
}

function pathParameters(path: string): Json[] {
  return [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
    ...(name === "id" ? { description: "Name or id" } : {}),
  }))
}

function queryParameters(query: z.ZodType | undefined, components: Components): Json[] {
  if (query === undefined) return []
  const { properties = {}, required = [] } = components.schema(query, "input") as {
    properties?: Record<string, Json>
    required?: string[]
  }
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: "query",
    required: required.includes(name),
    schema,
  }))
}

/** Schemas with an id appear once under `components` and are referenced. */
class Components {
  readonly schemas: Record<string, Json> = {}

  schema(type: z.ZodType, io: "input" | "output"): Json {
    const {
      $schema: _,
      $defs = {},
      id,
      ...schema
    } = z.toJSONSchema(type, { io }) as Json & {
      $defs?: Record<string, Json>
      id?: string
    }
    for (const [name, definition] of Object.entries($defs)) this.#add(name, definition)
    const inner = pointToComponents(schema) as Json
    if (id === undefined) return inner
    this.#add(id, inner)
    return { $ref: `#/components/schemas/${id}` }
  }

  #add(name: string, definition: Json): void {
    const { id: _, ...schema } = definition
    this.schemas[name] = pointToComponents(schema) as Json
  }
}

function pointToComponents(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pointToComponents)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      key === "$ref" && typeof inner === "string"
        ? inner.replace(/^#\/\$defs\//, "#/components/schemas/")
        : pointToComponents(inner),
    ]),
  )
}
