/**
 * Ctrl-C at a question. The question reads the key itself, so there is no signal; the exit code is the signal's
 * anyway.
 */

import { AppError } from "@bhatti/contract/errors"

export class Stopped extends AppError {
  constructor() {
    super("invalid", "stopped; nothing was changed")
  }
}
