/** `bhatti setup`. */

import { connect } from "../../client/client.ts"
import { AppError } from "../../contract/errors.ts"
import { defaultApiUrl } from "../../contract/limits.ts"
import { type HostContext, hostCommand } from "../command.ts"
import { isTerminal } from "../output.ts"
import { checkedSettings, readClientFile } from "../settings.ts"
import { WrongUsage } from "../wrong-usage.ts"

export const setup = hostCommand({
  description: `Asks for both, tries them, and saves them to ~/.bhatti/config.yaml, or to the file that BHATTI_CONFIG names; what else stands in the
file is kept. With --url and --token it asks nothing. Nothing is saved when the daemon does not answer or refuses the key.`,
  examples: ["bhatti setup", "bhatti setup --url https://api.example.com --token bht_..."],
  async run({ given, settings, isJson, out }) {
    const answers = checkedSettings(await ask(given, settings))
    try {
      await connect(answers).listSandboxes()
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      throw new AppError(error.code, `${error.message}; nothing was saved`, {
        cause: error,
        hint:
          error.code === "unauthenticated"
            ? "the operator makes a key with: sudo bhatti user create, or user rotate-key"
            : (error.hint ?? "check the address"),
      })
    }
    const { writeClientConfig } = await import("../client-config.ts")
    const file = await readClientFile(process.env)
    await writeClientConfig(file, answers, process.env)
    if (isJson) return await out.json({ api_url: answers.url, path: file.path })
    await out.result(`saved to ${file.path}`)
    await out.hint("  try: bhatti create --name dev")
  },
})

/** What the options leave open is asked, if somebody is there to ask. */
async function ask(
  given: HostContext["given"],
  settings: HostContext["settings"],
): Promise<{ url: string; token: string }> {
  const { url, token } = given
  if (url !== undefined && token !== undefined) return { url, token }
  if (!(await isTerminal(0)))
    throw new WrongUsage(`${url === undefined ? "--url" : "--token"} is missing, and nobody can be asked`, {
      hint: "bhatti setup --url URL --token KEY",
    })
  const { askHidden, askText } = await import("../questions.ts")
  return {
    url: url ?? (await askText("Address of the daemon", { initialValue: await currentUrl(settings) })),
    token: token ?? (await askHidden("API key")),
  }
}

/** A file that cannot be read as it is must not keep anybody from writing a good one. */
async function currentUrl(settings: HostContext["settings"]): Promise<string> {
  try {
    return (await settings()).url
  } catch (error) {
    if (error instanceof AppError) return defaultApiUrl
    throw error
  }
}
