/** `bhatti init`. */

import { resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { defaultCacheDir, defaultDataDir, defaultListen } from "@bhatti/contract/limits"
import { errorCodeOf } from "../../lib/error-code.ts"
import { hostCommand } from "../command.ts"
import { refuseListen } from "../listen-address.ts"

export const init = hostCommand({
  description:
    "Safe to repeat: existing files are kept, and installed images are brought up to date. Ends with a host on which `bhatti serve` starts.",
  options: {
    dataDir: {
      type: "text",
      value: "DIR",
      summary: "Data directory of the daemon",
      fallback: defaultDataDir,
    },
    cacheDir: {
      type: "text",
      value: "DIR",
      summary: "Cache directory for kernels and images",
      fallback: defaultCacheDir,
    },
    writeClientConfig: {
      type: "flag",
      summary: "Write the admin user's key to your ~/.bhatti/config.yaml, also under sudo",
    },
    probe: {
      type: "flag",
      summary: "Test KVM again; otherwise it is tested once per boot of the host",
    },
    image: {
      type: "text",
      value: "NAME",
      summary: "Install this image too: minimal, docker or another that bhatti image list names",
    },
    imageOnly: {
      type: "flag",
      summary: "Install the image of --image and change nothing else; also while the daemon runs",
    },
    listen: {
      type: "text",
      value: "HOST:PORT",
      summary: "Listen address of the daemon; for a new data directory",
      fallback: defaultListen,
    },
  },
  refuse: ({ options }) => {
    if (options.imageOnly && options.image === undefined) return "--image-only needs --image"
    return refuseListen({ options })
  },
  examples: [
    "sudo bhatti init --write-client-config",
    "sudo bhatti init --data-dir /srv/bhatti",
    "sudo bhatti init --probe && sudo systemctl restart bhatti",
    "sudo bhatti init --image minimal",
    "sudo bhatti init --image docker --image-only",
  ],
  async run({ options, operator, isJson, out }) {
    let talked: Promise<void> = Promise.resolve()
    const dataDir = resolve(options.dataDir ?? defaultDataDir)
    const cacheDir = resolve(options.cacheDir ?? defaultCacheDir)
    try {
      await operator.init({
        dataDir,
        cacheDir,
        writeClientConfig: options.writeClientConfig,
        probe: options.probe,
        ...(options.listen === undefined ? {} : { listen: options.listen }),
        ...(options.image === undefined ? {} : { image: options.image }),
        imageOnly: options.imageOnly,
        report: (line) => {
          talked = talked.then(() => out.talk(line))
        },
      })
    } catch (error) {
      throw inWords(error, dataDir)
    } finally {
      await talked
    }
    if (isJson) await out.json({ data_dir: dataDir, cache_dir: cacheDir })
  },
})

/** Errors of the host while the directories are made are not bugs of ours. */
function inWords(error: unknown, dataDir: string): unknown {
  const code = errorCodeOf(error)
  if (error instanceof AppError || code === undefined) return error
  const isForbidden = code === "EACCES" || code === "EPERM"
  const hint = "sudo bhatti init   (or give it a --data-dir and a --cache-dir of your own)"
  return new AppError(isForbidden ? "forbidden" : "unavailable", `cannot prepare ${dataDir} (${code})`, {
    cause: error,
    retryable: false,
    ...(isForbidden ? { hint } : {}),
  })
}
