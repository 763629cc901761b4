/** `bhatti serve`. */

import { resolve } from "node:path"
import { defaultDataDir, defaultListen } from "@bhatti/contract/limits"
import { hostCommand } from "../command.ts"
import { refuseListen } from "../listen-address.ts"

export const serve = hostCommand({
  description: `Runs until it is told to stop (SIGTERM, Ctrl-C). Running sandboxes continue without it and are found again at the next start.
It reads DATA_DIR/config.yaml or, without --data-dir and --config, the file that BHATTI_CONFIG names; options given here override it.
It refuses the database of another data directory and changes nothing; see: bhatti help admin recover`,
  options: {
    config: { type: "text", value: "FILE", summary: "Configuration file", fallback: "DATA_DIR/config.yaml" },
    dataDir: {
      type: "text",
      value: "DIR",
      summary: "Data directory of the daemon",
      fallback: defaultDataDir,
    },
    listen: { type: "text", value: "HOST:PORT", summary: "Address to listen on", fallback: defaultListen },
    accel: {
      type: "choice",
      value: "auto|kvm|tcg",
      choices: ["auto", "kvm", "tcg"],
      summary: "How machines run: hardware (kvm), software emulation (tcg), or auto to choose",
      fallback: "auto",
    },
  },
  refuse: refuseListen,
  examples: ["sudo bhatti serve", "sudo bhatti serve --listen 127.0.0.1:9090 --data-dir /srv/bhatti"],
  async run({ options, operator }) {
    await operator.serve({
      ...(options.config === undefined ? {} : { configPath: options.config }),
      ...(options.dataDir === undefined ? {} : { dataDir: resolve(options.dataDir) }),
      ...(options.listen === undefined ? {} : { listen: options.listen }),
      ...(options.accel === undefined ? {} : { accel: options.accel }),
    })
  },
})
