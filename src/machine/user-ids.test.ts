/** Which users of a host have user ids of machines. */

import { expect, test } from "bun:test"
import { othersIn } from "./user-ids.ts"

test("users, and users with subordinate ids, are named exactly when their ids are among those of machines", () => {
  const others = (passwd: string, subuid: string) =>
    othersIn({ passwd, subuid }, 700_000).map(({ name, file }) => `${name} ${file}`)
  const passwd = "root:x:0:0::/root:/bin/sh\n# nobody\nann:x:699999:1::/:/bin/sh\nbob:x:700000:1::/:/bin/sh\n"
  expect(others(`${passwd}eve:x:765535:1::/:/bin/sh\nlast:x:765536:1::/:/bin/sh\n`, "")).toEqual([
    "bob /etc/passwd",
    "eve /etc/passwd",
  ])
  expect(others("", "a:100000:65536\nj:689824:65536\nk:755360:65536\nl:820896:65536\nm:1:0\n\n")).toEqual([
    "j /etc/subuid",
    "k /etc/subuid",
  ])
  expect(others("garbage", "garbage:x:y\n:::\n")).toEqual([])
})
