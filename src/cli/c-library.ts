/** Locates the system's C library, for functions that the runtime does not offer. */

/** On macOS it is part of the system library, which is not a file but opens under this path on every version. */
export function cLibraryOf(platform: NodeJS.Platform): string {
  return platform === "darwin" ? "/usr/lib/libSystem.B.dylib" : "libc.so.6"
}
