/** Directories that clients send for builds. */

/** `link` is the target of a symbolic link. `digest` is that of a file's content. */
export type ContextEntry = {
  path: string
  kind: "file" | "directory" | "link"
  mode: number
  modifiedMs: number
  size: number
  link: string | null
  digest: string
}

/** Disposing it removes it from the host. */
export interface BuildContext extends AsyncDisposable {
  readonly bytes: number
  /** By path, without a slash at either end. */
  readonly entries: ReadonlyMap<string, ContextEntry>
  /** The content of a file. */
  read(path: string): AsyncIterable<Uint8Array>
}

export interface BuildContexts {
  /** Takes a tar archive; throws above `bytesMax` of it. */
  receive(archive: AsyncIterable<Uint8Array>, options: { bytesMax: number }): Promise<BuildContext>
}
