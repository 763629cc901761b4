/**
 * Words of an instruction, as a shell splits them: quotes, the escape character, and variables. Commands in `$(…)` are
 * none of a Dockerfile's.
 */

export type Variables = ReadonlyMap<string, string>
type Context = { variables: Variables; escapeChar: string }

/** Splits at blanks outside quotes; quotes and escapes stay in the words. */
export function splitWords(text: string, escapeChar: string): string[] {
  const words: string[] = []
  let word = ""
  let quote = ""
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? ""
    if (quote === "" && /\s/.test(char)) {
      if (word !== "") words.push(word)
      word = ""
      continue
    }
    word += char
    if (char === escapeChar && quote !== "'" && at + 1 < text.length) word += text[++at]
    else if (quote === "" && (char === '"' || char === "'")) quote = char
    else if (char === quote) quote = ""
  }
  if (word !== "") words.push(word)
  return words
}

/** Thrown as words; the caller knows the line. */
export class BadWord extends Error {
  override readonly name = "BadWord"
}

/** Replaces variables and removes quotes and escapes. */
export function expand(text: string, context: Context): string {
  return new Reader(text, context).read()
}

/** Replaces variables alone, as in a here document. */
export function expandBody(text: string, context: Context): string {
  return new Reader(text, context, { keepsQuotes: true }).read()
}

class Reader {
  readonly #text: string
  readonly #context: Context
  readonly #keepsQuotes: boolean
  #at = 0

  constructor(text: string, context: Context, { keepsQuotes = false } = {}) {
    this.#text = text
    this.#context = context
    this.#keepsQuotes = keepsQuotes
  }

  read(): string {
    const { escapeChar } = this.#context
    let out = ""
    let isDouble = false
    while (this.#at < this.#text.length) {
      const char = this.#text[this.#at] ?? ""
      if (char === "'" && !isDouble && !this.#keepsQuotes) out += this.#single()
      else if (char === '"' && !this.#keepsQuotes) {
        isDouble = !isDouble
        this.#at++
      } else if (char === escapeChar && this.#at + 1 < this.#text.length) out += this.#escaped(isDouble)
      else if (char === "$") out += this.#variable()
      else {
        out += char
        this.#at++
      }
    }
    if (isDouble) throw new BadWord(`a " has no end`)
    return out
  }

  #single(): string {
    const end = this.#text.indexOf("'", this.#at + 1)
    if (end < 0) throw new BadWord("a ' has no end")
    const inside = this.#text.slice(this.#at + 1, end)
    this.#at = end + 1
    return inside
  }

  #escaped(isDouble: boolean): string {
    const next = this.#text[this.#at + 1] ?? ""
    this.#at += 2
    const isKept = this.#keepsQuotes ? !["$", this.#context.escapeChar].includes(next) : false
    const isLiteral = isDouble && !['"', "$", this.#context.escapeChar].includes(next)
    return isKept || isLiteral ? `${this.#context.escapeChar}${next}` : next
  }

  #variable(): string {
    const rest = this.#text.slice(this.#at + 1)
    const plain = /^([A-Za-z_][A-Za-z0-9_]*|[0-9@*#])/.exec(rest)
    if (plain) {
      this.#at += 1 + plain[0].length
      return this.#context.variables.get(plain[0]) ?? ""
    }
    if (!rest.startsWith("{")) {
      this.#at++
      return "$"
    }
    const end = closingOf(this.#text, this.#at + 1)
    if (end < 0) throw new BadWord("the braces of a variable have no end")
    const inside = this.#text.slice(this.#at + 2, end)
    this.#at = end + 1
    return this.#braced(inside)
  }

  #braced(inside: string): string {
    const [, name, colon, operator, word] =
      /^([A-Za-z_][A-Za-z0-9_]*)(?:(:?)([-+?])([\s\S]*))?$/.exec(inside) ?? []
    if (name === undefined) throw new BadWord(`\${${inside}} is not supported`)
    const value = this.#context.variables.get(name)
    const isSet = colon === ":" ? value !== undefined && value !== "" : value !== undefined
    const other = () => expand(word ?? "", this.#context)
    if (operator === "-") return isSet ? (value ?? "") : other()
    if (operator === "+") return isSet ? other() : ""
    if (operator === "?" && !isSet) throw new BadWord(`${name}: ${other() || "is not set"}`)
    return value ?? ""
  }
}

/** The brace that closes the one at `open`. */
function closingOf(text: string, open: number): number {
  let depth = 0
  for (let at = open; at < text.length; at++) {
    if (text[at] === "{") depth++
    if (text[at] === "}" && --depth === 0) return at
  }
  return -1
}
