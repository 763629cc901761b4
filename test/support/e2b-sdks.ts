/** The majors of e2b's SDK that the tests drive, by name. */

import * as newest from "e2b"
import * as oldest from "e2b-2.27"
import * as older from "e2b-2.45"

export const e2bSdks = [
  ["2.51", newest],
  ["2.45", older],
  ["2.27", oldest],
] as unknown as [string, typeof newest][]
