/**
 * Why an image of others is refused. Each refusal has a code, its `reason`, so that callers and tests need not read the
 * message. The unpacker in `unpack/` gives the codes of its own refusals as text.
 */
import { AppError, type ErrorOptions } from "@bhatti/contract/errors"

/** Reasons that say that an image is more than the limits permit; it may be whole otherwise. */
const tooLarge: ReadonlySet<string> = new Set([
  "too_many_bytes",
  "too_many_entries",
  "too_many_layers",
  "too_deep",
  "too_compressed",
  "no_space",
])

export function refusal(
  reason: string,
  message: string,
  options: Omit<ErrorOptions, "reason"> = {},
): AppError {
  return new AppError(tooLarge.has(reason) ? "too_large" : "invalid", message, { ...options, reason })
}
