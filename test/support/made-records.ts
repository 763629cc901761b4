/** Records for tests of the store. */

import type { NewImage } from "../../src/store/images.ts"

const mebibyte = 1024 * 1024

export function anImage(name: string, changes: Partial<NewImage> = {}): NewImage {
  return {
    name,
    reference: `registry.example/${name}:latest`,
    indexDigest: null,
    manifestDigest: `sha256:${"a".repeat(64)}`,
    platform: "linux/amd64",
    diskName: `oci-${"a".repeat(64)}`,
    diskHash: "0123456789abcdef",
    diskMib: 8192,
    bytes: 10 * mebibyte,
    config: {
      user: "",
      workdir: "/app",
      env: { A: "é" },
      entrypoint: [],
      cmd: ["sh"],
      ports: [80],
      labels: {},
    },
    ...changes,
  }
}
