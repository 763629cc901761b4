/** Ctrl-C at a question. A question reads the key itself, so no signal comes; the exit code is the signal's all the same. */

import { AppError } from "../contract/errors.ts"

export class Stopped extends AppError {
  constructor() {
    super("invalid", "stopped; nothing was changed")
  }
}
