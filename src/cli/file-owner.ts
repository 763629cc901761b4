/** The option `--owner` of commands that write files. */

export const ownerOption = {
  owner: {
    type: "text",
    short: "o",
    value: "USER[:GROUP]",
    summary: "Owner in the sandbox, by name or number",
    fallback: "the replaced file's, or lohar",
  },
} as const
