/** Questions to the person at the terminal, on standard error. Loaded only when there is one to ask. */

import { password, text } from "@clack/prompts"
import { Stopped } from "./stopped.ts"

export async function askHidden(message: string): Promise<string> {
  return answered(await password({ message, output: process.stderr, validate: needed }))
}

export async function askText(message: string, options: { initialValue: string }): Promise<string> {
  return answered(await text({ message, ...options, output: process.stderr, validate: needed }))
}

function needed(value: string | undefined): string | undefined {
  return value === undefined || value.trim() === "" ? "It is needed." : undefined
}

function answered(answer: string | symbol): string {
  if (typeof answer === "string") return answer
  throw new Stopped()
}
