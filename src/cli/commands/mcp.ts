/** `bhatti mcp`. */

import { command } from "../command.ts"
import { isTerminal } from "../output.ts"
import { onSignals } from "../signals.ts"

export const mcp = command({
  description: `Serves the Model Context Protocol over standard input and output, for programs that give tools to a model: Claude Code, Claude Desktop, Cursor,
VS Code, Codex and others. They start it themselves; bhatti mcp install writes it into their configuration.

The tools are create, list, exec, process, file, snapshot, publish and destroy. They use the address and the key of this command line; a key that may
do less (bhatti key create) is refused what it may not do. Long output is cut, and the tool process reads the rest. A cancelled call kills its
command, and so does the end of the client.`,
  examples: [
    "bhatti mcp install claude-code",
    "npx @modelcontextprotocol/inspector bhatti mcp",
    "BHATTI_CONFIG=~/.bhatti/agent.yaml bhatti mcp",
  ],
  async run({ client, out }) {
    const stop = new AbortController()
    using _listening = onSignals(["SIGINT", "SIGTERM", "SIGHUP"], () => stop.abort())
    if (await isTerminal(0))
      await out.talk(
        "bhatti: waits for an MCP client at standard input; to add it to one: bhatti mcp install CLIENT",
      )
    const { serveOverStdio } = await import("../../mcp/stdio.ts")
    await serveOverStdio(client, stop.signal)
  },
})
