/** `bhatti registry login`. */

import { AppError } from "@bhatti/contract/errors"
import { command } from "../command.ts"
import { isTerminal } from "../output.ts"
import { readInputText } from "../standard-input.ts"

export const registryLogin = command({
  args: ["host"],
  description: `Stores a login for your pulls from that registry, encrypted, in the daemon. It is for agents and scripts that have no login of
their own; a pull from your machine uses what podman login and docker login have stored there.
The password or token is read from standard input, without its last line break, or asked for at a terminal without echo.`,
  options: {
    username: {
      type: "text",
      short: "u",
      value: "NAME",
      summary: "User name at the registry",
      isRequired: true,
    },
  },
  examples: [
    "bhatti registry login --username me registry.example.com",
    "bhatti registry login --username me registry.example.com:5000 < token.txt",
  ],
  async run({ client, args, options, isJson, out }) {
    const password = (await isTerminal(0)) ? await ask() : (await readInputText()).replace(/\r?\n$/, "")
    const login = await client.logIn({ body: { host: args.host, username: options.username, password } })
    if (isJson) return await out.json(login)
    await out.result(`registry/${login.host} logged in as ${login.username}`)
  },
})

async function ask(): Promise<string> {
  const { openQuestions } = await import("../questions.ts")
  using questions = openQuestions()
  const value = await questions.hidden("Password or token", { isPresent: false })
  if (value === undefined || value === "") throw new AppError("invalid", "no password was given")
  return value
}
