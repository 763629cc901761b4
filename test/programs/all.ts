/** All programs, those that the default image has, and the few of the short form. */

import { compiledPrograms } from "./compiled.ts"
import { cryptoPrograms } from "./crypto.ts"
import { languagePrograms } from "./languages.ts"
import { machineCodePrograms } from "./machine-code.ts"
import { nodePrograms } from "./node.ts"
import type { Programs } from "./programs.ts"
import { pythonPrograms } from "./python.ts"
import { shellPrograms } from "./shell.ts"
import { systemPrograms } from "./system.ts"

export const allPrograms: Programs = {
  ...shellPrograms,
  ...cryptoPrograms,
  ...pythonPrograms,
  ...nodePrograms,
  ...machineCodePrograms,
  ...compiledPrograms,
  ...languagePrograms,
  ...systemPrograms,
}

/** Quick ones, without a compiler. */
const few = [
  "sort numbers",
  "awk floats",
  "awk recursion",
  "sed hold space",
  "bash traps",
  "bash processes",
  "xz",
  "cipher aes-256-cbc",
  "digest sha512",
  "python: machine code in memory",
  "python: a database on disk",
  "perl: regular expressions",
  "a module that comes and goes",
]

export const fewPrograms: Programs = Object.fromEntries(
  few.map((name) => [name, allPrograms[name] ?? "false"]),
)
