/** `--mode` of the file commands. */

export const modeRule = "--mode takes three or four octal digits, such as 0644"

export function isFileMode(mode: string | undefined): boolean {
  return mode === undefined || /^0?[0-7]{3,4}$/.test(mode)
}
