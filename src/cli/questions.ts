/** Questions to the person at the terminal, on standard error. Loaded only when there is one to ask. */

import { password, text } from "@clack/prompts"
import { Keys } from "./keys.ts"
import { Stopped } from "./stopped.ts"

export type Questions = Disposable & {
  /** Enter alone keeps the present value; typed text replaces it. */
  text(message: string, options: { present: string }): Promise<string>
  /** Asks without echo. Returns undefined for Enter alone if there is a value to keep. */
  hidden(message: string, options: { isPresent: boolean }): Promise<string | undefined>
}

export function openQuestions(): Questions {
  const keys = new Keys()
  const output = process.stderr
  return {
    async text(message, { present }) {
      const shown = { message, placeholder: present, defaultValue: present }
      const given = answered(await text({ ...shown, input: keys.open(), output }))
      return given.trim() === "" ? present : given
    },
    async hidden(message, { isPresent }) {
      const validate = (value: string | undefined) => {
        if (isPresent || (value !== undefined && value.trim() !== "")) return undefined
        keys.goOn()
        return "It is needed."
      }
      const given = answered(await password({ message, input: keys.open(), output, validate }))
      return given.trim() === "" ? undefined : given
    },
    [Symbol.dispose]: () => keys[Symbol.dispose](),
  }
}

function answered(answer: string | symbol | undefined): string {
  if (typeof answer === "symbol") throw new Stopped()
  return answer ?? ""
}
