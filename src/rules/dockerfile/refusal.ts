/** Why a Dockerfile is refused, and where: every error of it names its line. */

import { AppError } from "@bhatti/contract/errors"

export class DockerfileError extends AppError {
  constructor(line: number, what: string, hint?: string) {
    super("invalid", `Dockerfile, line ${line}: ${what}`, {
      reason: "bad_dockerfile",
      ...(hint !== undefined && { hint }),
    })
  }
}
