/** A client's address, behind proxies and over IPv6. */

import { expect, test } from "bun:test"
import { isLoopback, limitKey, plainAddress, TrustedProxies } from "./client-address.ts"

test("a header says who the client is only when a trusted proxy brings it", () => {
  const proxies = new TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])
  const client = (peer: string, ...forwarded: string[]) => proxies.clientBehind(peer, forwarded)
  expect(client("192.0.2.1", "1.1.1.1")).toBe("192.0.2.1")
  expect(client("127.0.0.1")).toBe("127.0.0.1")
  expect(client("127.0.0.1", "1.1.1.1")).toBe("1.1.1.1")
  expect(client("127.0.0.1", "6.6.6.6, 1.1.1.1")).toBe("1.1.1.1")
  expect(client("127.0.0.1", "6.6.6.6", "1.1.1.1, 10.2.3.4")).toBe("1.1.1.1")
  expect(client("fd00::1", "2001:db8::7")).toBe("2001:db8::7")
  expect(client("127.0.0.1", "nonsense")).toBe("127.0.0.1")
  expect(client("127.0.0.1", "10.0.0.1")).toBe("10.0.0.1")
  expect(new TrustedProxies([]).clientBehind("127.0.0.1", ["1.1.1.1"])).toBe("127.0.0.1")
})

test("limits count a household of IPv6 addresses as one", () => {
  expect(limitKey("192.0.2.1")).toBe("192.0.2.1")
  expect(limitKey("2001:db8:1:2:3:4:5:6")).toBe("2001:db8:1:2::/64")
  expect(limitKey("2001:db8:1:2::9")).toBe("2001:db8:1:2::/64")
  expect(limitKey("2001:0db8:0001:0002::9")).toBe("2001:db8:1:2::/64")
  expect(limitKey("2001:db8::1")).toBe("2001:db8:0:0::/64")
  expect(limitKey("::1")).toBe("0:0:0:0::/64")
})

test("an address is the same over either kind of socket", () => {
  expect(plainAddress("::ffff:127.0.0.1")).toBe("127.0.0.1")
  expect(plainAddress("::1")).toBe("::1")
  expect([isLoopback("127.0.0.53"), isLoopback("::1"), isLoopback("128.0.0.1")]).toEqual([true, true, false])
})
