/** Which networks a policy may name in vain. */

import { expect, test } from "bun:test"
import { closedAmong } from "./internal.ts"

const hostNetwork = { subnet: "10.209.0.0/16", opened: ["172.31.0.0/24", "10.0.0.0/8"] }

test("a network that is wholly internal and not opened is closed", () => {
  const asked = ["192.168.0.0/16", "169.254.169.254/32", "127.0.0.1/32", "224.0.0.0/3", "172.31.1.0/24"]
  expect(closedAmong(asked, hostNetwork)).toEqual(asked)
})

test("one that is public, only partly internal, or has an opened part is not", () => {
  expect(closedAmong(["8.8.8.0/24", "128.0.0.0/1", "172.16.0.0/12", "10.1.2.3/32"], hostNetwork)).toEqual([])
})

test("the sandboxes' own addresses are closed whatever is opened", () => {
  expect(closedAmong(["10.209.64.0/24"], hostNetwork)).toEqual(["10.209.64.0/24"])
})
