/** `bhatti setup`. */

import { resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { defaultApiUrl } from "@bhatti/contract/limits"
import { adviceFor } from "../advice.ts"
import { hostCommand } from "../command.ts"
import { isTerminal } from "../output.ts"
import {
  type ClientFile,
  checkedSettings,
  checkedUrl,
  type GivenSettings,
  readCertificates,
  readClientFile,
  readSaved,
} from "../settings.ts"
import { readLines } from "../standard-input.ts"
import { connectTo } from "../transport.ts"
import { WrongUsage } from "../wrong-usage.ts"

export const setup = hostCommand({
  description: `Asks for address and key, tries them, and saves them to ~/.bhatti/config.yaml, or to the file that BHATTI_CONFIG names; other settings in
the file are kept. Enter alone takes the displayed address and keeps its saved key. With --url and --token it asks nothing; without a
terminal it reads missing answers from standard input, one per line. It saves nothing if the daemon does not answer or refuses the key.

For a daemon with a certificate from your own authority, --ca names the authority's certificate; its path is saved too, and removed when
the address changes to another host.`,
  examples: [
    "bhatti setup",
    "bhatti setup --url https://api.example.com --token bht_...",
    "printf 'https://api.example.com\\nbht_...\\n' | bhatti setup",
    "bhatti setup --url https://10.0.0.5 --ca ./our-ca.pem",
  ],
  async run({ given, isJson, out }) {
    const file = await readClientFile(process.env)
    const present = presentSettings(file)
    const answers = checkedSettings(await ask(given, present))
    const isSameHost = new URL(answers.url).hostname === new URL(present.url).hostname
    const kept = isSameHost ? present.caFile : undefined
    const caFile = given.ca ?? kept ?? (process.env.BHATTI_CA || undefined)
    const isUsed = caFile !== undefined && (given.ca !== undefined || answers.url.startsWith("https:"))
    const ca = isUsed ? await readCertificates(caFile, "setup") : undefined
    try {
      await connectTo({ ...answers, ca }).listSandboxes()
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      throw new AppError(error.code, `${error.message}; nothing was saved`, {
        cause: error,
        hint:
          error.code === "unauthenticated"
            ? "the operator makes a key with: sudo bhatti user create, or user rotate-key"
            : (adviceFor(error) ?? "check the address"),
      })
    }
    const { writeClientConfig } = await import("../client-config.ts")
    const unused = isSameHost ? "keep" : "remove"
    await writeClientConfig(file, { ...answers, caFile: isUsed ? resolve(caFile) : unused }, process.env)
    if (isJson) return await out.json({ api_url: answers.url, path: file.path })
    await out.result(`saved to ${file.path}`)
    await out.hint("  try: bhatti create --name dev")
  },
})

type Address = { url: string; token: string }
type Present = { url: string; token: string | undefined; caFile: string | undefined }

/** Asks for the settings that the options leave open, or reads them from standard input. */
async function ask(given: GivenSettings, present: Present): Promise<Address> {
  const { url, token } = given
  if (url !== undefined && token !== undefined) return { url, token }
  return (await isTerminal(0)) ? await askPerson(given, present) : await readAnswers(given, present)
}

async function askPerson(given: GivenSettings, present: Present): Promise<Address> {
  const { openQuestions } = await import("../questions.ts")
  using questions = openQuestions()
  const url = checkedUrl(
    given.url ?? (await questions.text("Address of the daemon", { present: present.url })),
  )
  if (given.token !== undefined) return { url, token: given.token }
  const kept = keptToken(url, present)
  const message = kept === undefined ? "API key" : "API key (Enter keeps the present one)"
  const token = (await questions.hidden(message, { isPresent: kept !== undefined })) ?? kept
  return { url, token: token ?? "" }
}

async function readAnswers(given: GivenSettings, present: Present): Promise<Address> {
  const lines = await readLines(2)
  const missing = (flag: string) =>
    new WrongUsage(`${flag} is missing, and there is no terminal to ask for it`, {
      hint: "bhatti setup --url URL --token KEY",
    })
  const address = given.url ?? lines.shift()?.trim()
  if (address === undefined) throw missing("--url")
  const url = checkedUrl(address === "" ? present.url : address)
  const token = given.token ?? (lines.shift()?.trim() || keptToken(url, present))
  if (token === undefined) throw missing("--token")
  return { url, token }
}

/** A key belongs to the daemon that issued it and must not be sent to another. */
function keptToken(url: string, present: Present): string | undefined {
  return url === present.url ? present.token : undefined
}

/** An unreadable file must not prevent writing a valid one. */
function presentSettings(file: ClientFile): Present {
  const { BHATTI_URL, BHATTI_TOKEN } = process.env
  try {
    const { url, token, caFile } = readSaved(file)
    return {
      url: checkedUrl(url || BHATTI_URL || defaultApiUrl),
      token: token || BHATTI_TOKEN || undefined,
      caFile,
    }
  } catch (error) {
    if (error instanceof AppError) return { url: defaultApiUrl, token: undefined, caFile: undefined }
    throw error
  }
}
