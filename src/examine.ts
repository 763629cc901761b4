/** Examines a data directory for the doctor, beyond the doctor's own checks. Changes nothing. */

import { adviceFor } from "./cli/advice.ts"
import { KeptRows } from "./disk/kept-rows.ts"
import { listDamage } from "./image/survey.ts"
import { type Check, fail, warn } from "./lib/preflight.ts"
import { belongingOf, refusal } from "./store/belonging.ts"
import { copiesOf, listCopies } from "./store/copies.ts"

export async function examine({ dataDir }: { dataDir: string }): Promise<Check[]> {
  const belonging = belongingOf(dataDir)
  const findings: Check[] = []
  if (belonging.kind === "misfit") {
    const { message, hint } = refusal(dataDir, belonging.fault)
    findings.push(fail("data", message, hint))
  }
  if (belonging.kind === "fits" && belonging.markProblem) {
    const text = `${dataDir}/installation.json is ${belonging.markProblem}; the daemon writes it again when it starts`
    const fix = `if the database was put back from elsewhere, compare it with ${copiesOf(dataDir)}`
    findings.push(warn("data", text, fix))
  }
  for (const damage of await listDamage(dataDir))
    findings.push(fail("data", damage.message, adviceFor(damage)))
  for (const { kind, id, reason, at, path } of new KeptRows({ dataDir }).listSetAside()) {
    const back =
      kind === "database"
        ? ""
        : `; bring it back, with the daemon stopped: sudo bhatti admin recover ${id} --data-dir ${dataDir}`
    const text = `${path} was set aside ${at}: ${kind} ${id}, ${reason}`
    findings.push(warn("data", text, `remove it when it is not needed: sudo rm -r ${path}${back}`))
  }
  if (belonging.kind === "fits" && listCopies(dataDir).length === 0)
    findings.push(
      warn(
        "data",
        `there is no copy of the database in ${copiesOf(dataDir)}`,
        "the daemon makes one per day; its log says why that failed",
      ),
    )
  return findings
}
