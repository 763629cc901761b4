/** The handler of every endpoint, by resource. A missing handler does not compile. */

import type { Handlers } from "./context.ts"
import { events } from "./routes/events.ts"
import { exec } from "./routes/exec.ts"
import { files } from "./routes/files.ts"
import { images } from "./routes/images.ts"
import { keys } from "./routes/keys.ts"
import { processes } from "./routes/processes.ts"
import { publish } from "./routes/publish.ts"
import { registries } from "./routes/registries.ts"
import { sandboxes } from "./routes/sandboxes.ts"
import { secrets } from "./routes/secrets.ts"
import { services } from "./routes/services.ts"
import { sessions } from "./routes/sessions.ts"
import { snapshots } from "./routes/snapshots.ts"
import { type About, system } from "./routes/system.ts"
import { tasks } from "./routes/tasks.ts"
import { tickets } from "./routes/tickets.ts"
import { watches } from "./routes/watches.ts"

export function handlers(about: About): Handlers {
  return {
    ...system(about),
    ...sandboxes,
    ...snapshots,
    ...events,
    ...exec,
    ...sessions,
    ...processes,
    ...services,
    ...keys,
    ...tickets,
    ...files,
    ...watches,
    ...images,
    ...tasks,
    ...registries,
    ...secrets,
    ...publish,
  }
}
