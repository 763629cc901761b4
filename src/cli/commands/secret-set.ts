/** `bhatti secret set`. */

import { AppError } from "@bhatti/contract/errors"
import { command } from "../command.ts"
import { isTerminal } from "../output.ts"
import { readInputText } from "../standard-input.ts"

export const secretSet = command({
  args: ["name"],
  optionalArgs: ["value"],
  inputArg: "value",
  description: `Without VALUE the secret is read from standard input, without its last line break, or asked for at a terminal without echo.
A VALUE on the command line ends up in the shell's history; write -- before one that begins with a dash.
Existing sandboxes keep the old value.`,
  examples: [
    "bhatti secret set API_KEY",
    "bhatti secret set API_KEY < key.txt",
    "bhatti secret set API_KEY sk-abc123def",
  ],
  async run({ client, args, isJson, out }) {
    const value =
      args.value ??
      ((await isTerminal(0)) ? await ask(args.name) : (await readInputText()).replace(/\r?\n$/, ""))
    const secret = await client.setSecret({ body: { name: args.name, value } })
    if (isJson) return await out.json(secret)
    await out.result(`secret/${secret.name} set`)
  },
})

async function ask(name: string): Promise<string> {
  const { openQuestions } = await import("../questions.ts")
  using questions = openQuestions()
  const value = await questions.hidden(`Value of ${name}`, { isPresent: false })
  if (value === undefined || value !== (await questions.hidden("The same again", { isPresent: false })))
    throw new AppError("invalid", "the two values differ; nothing was saved")
  return value
}
