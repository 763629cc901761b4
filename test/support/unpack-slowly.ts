/** Reads an archive that begins and never ends, in the directory given, for tests that end this process. */
import { readArchive } from "../../src/image/archive.ts"
import { endlessArchive } from "./tar-bytes.ts"

await readArchive({ archive: endlessArchive(), directory: process.argv[2] ?? "", uid: 799_000 })
