/** The order in which users fetch. */

import { expect, test } from "bun:test"
import { FetcherPlaces } from "./fetcher-places.ts"

const never = new AbortController().signal

/** Notes each owner when it gets a user id. */
function placesOf(uids: number[]) {
  const places = new FetcherPlaces(uids, { ownerMax: 2 })
  const taken: { owner: string; uid: number }[] = []
  const take = async (owner: string, signal = never) => {
    const uid = await places.take(owner, signal)
    taken.push({ owner, uid })
  }
  const owners = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve()
    return taken.map(({ owner }) => owner).join("")
  }
  const give = (owner: string) => {
    const at = taken.findIndex((one) => one.owner === owner)
    const [one] = taken.splice(at, 1)
    if (one) places.give(owner, one.uid)
  }
  return { take, owners, give, taken }
}

test("a user who asks for many fetches leaves places for others", async () => {
  const { take, owners, give, taken } = placesOf([1, 2, 3, 4])
  for (let count = 0; count < 10; count++) void take("a")
  expect(await owners()).toBe("aa")
  void take("b")
  void take("c")
  expect(await owners()).toBe("aabc")
  expect(new Set(taken.map(({ uid }) => uid)).size).toBe(4)
  give("b")
  expect(await owners()).toBe("aac")
  give("a")
  expect(await owners()).toBe("aca")
})

test("the user with the fewest fetches is next, then the one who came first", async () => {
  const { take, owners, give } = placesOf([1, 2])
  for (const owner of ["a", "a", "a", "b", "c"]) void take(owner)
  expect(await owners()).toBe("aa")
  give("a")
  expect(await owners()).toBe("ab")
  give("b")
  expect(await owners()).toBe("ac")
  give("c")
  expect(await owners()).toBe("aa")
})

test("a fetch that is given up takes no place", async () => {
  const { take, owners, give } = placesOf([1])
  void take("a")
  const gone = new AbortController()
  const left = take("b", gone.signal)
  void take("c")
  gone.abort(new Error("left"))
  await expect(left).rejects.toThrow("left")
  give("a")
  expect(await owners()).toBe("c")
})
