/** A service on the wire. */

import type { GuestServiceState } from "@bhatti/contract/guest"
import type { ServiceState } from "@bhatti/contract/services"
import { reasonOf } from "../../core/services.ts"

export function viewService(state: GuestServiceState): ServiceState {
  return {
    name: state.name,
    state: state.state,
    restarts: state.restarts,
    restart: state.restart,
    // Commands are run by a shell.
    command: state.argv.at(-1) ?? "",
    process_id: state.process,
    reason: reasonOf(state),
    failing: state.isFailing,
    retry_seconds: state.retryMs === null ? null : Math.ceil(state.retryMs / 1000),
  }
}
