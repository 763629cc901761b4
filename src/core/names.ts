/** Names of new sandboxes: friendly names for unnamed ones, numbered names for several. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"

const adjectives =
  "amber bold brave bright brisk calm clever copper cosy crisp eager early fair fast fine fond gentle glad golden grand happy hardy humble jolly keen kind late light lively lucky mellow merry mild neat nimble noble plain proud quick quiet rapid ready rosy royal sharp shiny silent silver smart smooth snug solid spry steady still sunny swift tidy vivid warm wise witty young".split(
    " ",
  )
const nouns =
  "acorn anchor anvil arrow badger barley basket beacon birch bison bridge brook candle canyon cedar cliff clover comet coral crane creek dune eagle ember falcon fern finch flint forge fox garden glacier grove harbor hare hawk hazel heron hill kiln lake lantern lark lemon lynx maple marble meadow moon moss oak otter owl pebble pine plum pond quartz raven reef ridge river robin sparrow stone thistle tiger valley walnut willow wren".split(
    " ",
  )

/** `random` returns numbers from 0 to below 1. There are about 5000 pairs; `attempt` above 0 adds digits. */
export function friendlyName(random: () => number, attempt: number): string {
  const pick = (words: string[]) => words[Math.floor(random() * words.length)] ?? "sandbox"
  const name = `${pick(adjectives)}-${pick(nouns)}`
  return attempt === 0 ? name : `${name}-${Math.floor(random() * 10_000)}`
}

/** Returns `NAME-1` to `NAME-N`; without a name, each sandbox gets its own. */
export function namesOf(name: string | undefined, count: number): (string | undefined)[] {
  if (count === 1 || name === undefined) return Array.from({ length: count }, () => name)
  const names = Array.from({ length: count }, (_, index) => `${name}-${index + 1}`)
  const tooLong = names.find((one) => !limits.sandboxNamePattern.test(one))
  if (tooLong === undefined) return names
  throw new AppError("invalid", `"${tooLong}" is too long a name`, { hint: "choose a shorter name" })
}
