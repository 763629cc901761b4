/** From a JSON Schema, as zod writes it, to values that fit it, values at its edges, and values that almost fit. */

import fc, { type Arbitrary } from "fast-check"

export type JsonSchema = {
  $defs?: Record<string, JsonSchema>
  $ref?: string
  type?: string
  const?: unknown
  enum?: unknown[]
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
  allOf?: JsonSchema[]
  properties?: Record<string, JsonSchema>
  required?: string[]
  propertyNames?: JsonSchema
  additionalProperties?: boolean | JsonSchema
  items?: JsonSchema
  minItems?: number
  maxItems?: number
  minLength?: number
  maxLength?: number
  pattern?: string
  minimum?: number
  maximum?: number
  exclusiveMinimum?: number
}

/** More would only make the run slow; bounds are tried at their edges by `edges`. */
const itemsMax = 4
const lengthMax = 40
const edgeLengthMax = 200_000

export function fitting(schema: JsonSchema, root: JsonSchema = schema): Arbitrary<unknown> {
  if (schema.$ref !== undefined) {
    const found = root.$defs?.[schema.$ref.replace("#/$defs/", "")]
    return found === undefined ? fc.jsonValue() : fitting(found, root)
  }
  if (schema.const !== undefined) return fc.constant(schema.const)
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  const choices = schema.anyOf ?? schema.oneOf
  if (choices !== undefined) return fc.oneof(...choices.map((choice) => fitting(choice, root)))
  if (schema.allOf !== undefined) {
    const { allOf, ...rest } = schema
    return fitting(Object.assign({}, rest, ...allOf) as JsonSchema, root)
  }
  switch (schema.type) {
    case "string":
      return text(schema)
    case "integer":
      return fc.integer({
        min: Math.max(schema.minimum ?? -1000, -(2 ** 31)),
        max: Math.min(schema.maximum ?? 1000, 2 ** 31 - 1),
      })
    case "number":
      return fc.double({
        min: schema.minimum ?? schema.exclusiveMinimum ?? -1000,
        max: schema.maximum ?? 1000,
        noNaN: true,
        minExcluded: schema.exclusiveMinimum !== undefined,
      })
    case "boolean":
      return fc.boolean()
    case "null":
      return fc.constant(null)
    case "array":
      return fc.array(fitting(schema.items ?? {}, root), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.min(schema.maxItems ?? itemsMax, itemsMax),
      })
    case "object":
      return object(schema, root)
    default:
      return fc.jsonValue()
  }
}

function text({ pattern, minLength = 0, maxLength = lengthMax }: JsonSchema): Arbitrary<string> {
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern))
  const bounds = { minLength, maxLength: Math.max(minLength, Math.min(maxLength, lengthMax)) }
  return fc.oneof(fc.string(bounds), fc.string({ ...bounds, unit: "binary" }))
}

function object(schema: JsonSchema, root: JsonSchema): Arbitrary<unknown> {
  if (schema.properties === undefined) {
    const values = typeof schema.additionalProperties === "object" ? schema.additionalProperties : {}
    const names = schema.propertyNames === undefined ? fc.string() : text(schema.propertyNames)
    return fc.dictionary(names, fitting(values, root), { maxKeys: itemsMax })
  }
  const properties = Object.fromEntries(
    Object.entries(schema.properties).map(([name, inner]) => [name, fitting(inner, root)]),
  )
  return fc.record(properties, { requiredKeys: schema.required ?? [] })
}

/** A fitting value in which one thing is at a bound, beyond it, of another kind, missing or too many. */
export function almostFitting(schema: JsonSchema): Arbitrary<unknown> {
  return fc.tuple(fitting(schema), fc.nat(), odd, fc.nat()).map(([value, where, replacement, how]) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return replacement
    const names = Object.keys(schema.properties ?? value)
    const name = names[where % Math.max(1, names.length)]
    const copy: Record<string, unknown> = { ...value }
    if (name === undefined || how % 4 === 0) copy["not_in_the_contract"] = replacement
    else if (how % 4 === 1) delete copy[name]
    else copy[name] = how % 4 === 2 ? replacement : beyond(schema.properties?.[name])
    return copy
  })
}

function beyond({ maxLength, maximum, minimum, maxItems }: JsonSchema = {}): unknown {
  if (maxLength !== undefined && maxLength < edgeLengthMax) return "x".repeat(maxLength + 1)
  if (maximum !== undefined) return maximum + 1
  if (minimum !== undefined) return minimum - 1
  if (maxItems !== undefined) return Array.from({ length: maxItems + 1 }, () => "x")
  return Number.MAX_SAFE_INTEGER
}

const odd = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    -1,
    0,
    1e308,
    2 ** 53,
    "",
    "\0",
    "../..",
    "-rf",
    "a".repeat(5000),
    [],
    {},
    true,
  ),
  fc.constantFrom<unknown>("__proto__", "constructor", "%2e%2e", "\u202e", "' or 1=1 --", "\r\nx: y"),
  fc.jsonValue(),
)
