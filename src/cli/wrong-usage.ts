/**
 * An error in a command line's arguments. `cli.ts` exits 2 for it, wherever it is thrown, and points to the
 * command's help.
 */

import { AppError } from "@bhatti/contract/errors"

export class WrongUsage extends AppError {
  constructor(message: string, options: { hint?: string } = {}) {
    super("invalid", message, options)
  }
}
