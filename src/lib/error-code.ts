/** Returns the code of a system or runtime error, such as `ENOENT`. */

export function errorCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const code: unknown = Reflect.get(error, "code")
  return typeof code === "string" ? code : undefined
}
