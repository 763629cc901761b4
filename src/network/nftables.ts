/**
 * Applies firewall text with nftables' own library, inside the daemon: starting `nft` takes 30 ms of processor
 * time, the work itself less than one. The library caches the kernel's rules between calls and reads them again
 * when another program has changed them. A call blocks the daemon until it is done.
 */

import { CString, dlopen, FFIType, type Pointer } from "bun:ffi"
import { AppError } from "@bhatti/contract/errors"

export class Nftables {
  #opened: { library: Library; context: Pointer } | undefined

  /**
   * Runs a batch as one transaction; throws if it fails, without effect. Returns the output of list commands as
   * text: as JSON nftables 1.0.6 misprints or omits tables that have a flag, as other firewalls' tables do.
   */
  run(purpose: string, commands: string): string {
    this.#opened ??= open()
    const { library, context } = this.#opened
    const failed = library.nft_run_cmd_from_buffer(context, Buffer.from(`${commands}\0`)) !== 0
    const output = textAt(library.nft_ctx_get_output_buffer(context))
    if (!failed) return output
    throw new AppError("unavailable", `cannot ${purpose}`, {
      cause: new Error(`nftables: ${textAt(library.nft_ctx_get_error_buffer(context)).trim()}`),
      hint: "the daemon's log has the cause",
      subject: { kind: "host" },
    })
  }
}

type Library = ReturnType<typeof load>

function load() {
  const { ptr, i32, u32, cstring } = FFIType
  return dlopen("libnftables.so.1", {
    nft_ctx_new: { args: [u32], returns: ptr },
    nft_ctx_buffer_output: { args: [ptr], returns: i32 },
    nft_ctx_buffer_error: { args: [ptr], returns: i32 },
    nft_run_cmd_from_buffer: { args: [ptr, cstring], returns: i32 },
    nft_ctx_get_output_buffer: { args: [ptr], returns: ptr },
    nft_ctx_get_error_buffer: { args: [ptr], returns: ptr },
  }).symbols
}

function open(): { library: Library; context: Pointer } {
  let library: Library
  try {
    library = load()
  } catch (cause) {
    throw new AppError("unavailable", "cannot apply the network rules: nftables is not installed", {
      cause,
      subject: { kind: "host" },
      retryable: false,
    })
  }
  const context = library.nft_ctx_new(0)
  if (typeof context !== "number") throw new AppError("unavailable", "nftables cannot be used")
  // Otherwise both are printed.
  if (library.nft_ctx_buffer_output(context) !== 0 || library.nft_ctx_buffer_error(context) !== 0)
    throw new AppError("unavailable", "nftables cannot be used")
  return { library, context }
}

function textAt(pointer: Pointer | bigint | null): string {
  // Addresses of a process fit into a number.
  return typeof pointer === "number" ? new CString(pointer).toString() : ""
}
