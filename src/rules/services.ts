/** Rules of services, for whatever surface they come through. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"

type Service = { name: string; command: string; after: readonly string[] }

/** Words that mean something to a shell itself. */
const shellWords = new Set(
  `. : alias bg bind break builtin case cd chdir command continue declare do done echo elif else esac eval exec exit
  export false fc fg fi for function getopts hash help history if in jobs kill let local logout printf pwd read readonly
  return select set shift source test then time times trap true type typeset ulimit umask unalias unset until wait
  while`.split(/\s+/),
)

/** The program that a shell command begins with, if it plainly is one: its absence can be told before a start. */
export function programOf(command: string): string | undefined {
  const [, word = "", rest = ""] = /^\s*(?:exec\s+)?([\w./+][\w./+-]*)(?:\s+(\S)|\s*$)/.exec(command) ?? []
  return word === "" || rest === "(" || shellWords.has(word) ? undefined : word
}

/** Refuses names that are wrong or taken, and an order that cannot be. */
export function checkService(services: readonly Service[]): void {
  const refuse = (message: string) => {
    throw new AppError("invalid", message)
  }
  if (services.length > limits.servicesMax) refuse(`a sandbox has at most ${limits.servicesMax} services`)
  const byName = new Map(services.map((service) => [service.name, service]))
  if (byName.size < services.length) refuse("two services have one name")
  for (const { name, command, after } of services) {
    if (!limits.serviceNamePattern.test(name) || limits.processIdPattern.test(name))
      refuse(limits.serviceNameRule)
    if (limits.serviceNamesReserved.includes(name)) refuse(limits.serviceNameReservedRule)
    if (command.length < 1 || command.length > limits.startCommandMax || command.includes("\0"))
      refuse(
        `the command of service "${name}" must have 1 to ${limits.startCommandMax} characters and no NUL`,
      )
    const missing = after.find((other) => !byName.has(other))
    if (missing !== undefined) refuse(`service "${name}" starts after "${missing}", which does not exist`)
  }
  const isOrdered = new Set<string>()
  for (let left = services.length; left > 0; left--) {
    const next = services.find(
      ({ name, after }) => !isOrdered.has(name) && after.every((other) => isOrdered.has(other)),
    )
    if (!next) return refuse("the services would have to start after each other in a circle")
    isOrdered.add(next.name)
  }
}
