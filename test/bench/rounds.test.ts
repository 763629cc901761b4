/** How the benchmark takes turns. */

import { expect, test } from "bun:test"
import { measureInTurns } from "../../bench/rounds.ts"

const generous = { budgetMs: 60_000 }

test("subjects take turns, and who begins changes every round", async () => {
  const order: string[] = []
  const subject = (name: string) => async () => {
    order.push(name)
    return { [name]: order.length }
  }
  const samples = await measureInTurns([subject("ours"), subject("theirs")], {
    rounds: 2,
    warmUps: 0,
    ...generous,
  })
  expect(order).toEqual(["ours", "theirs", "theirs", "ours"])
  expect(samples).toEqual({ ours: [1, 4], theirs: [2, 3] })
})

test("rounds to warm up run but do not count", async () => {
  let calls = 0
  const samples = await measureInTurns([async () => ({ call: ++calls })], {
    rounds: 2,
    warmUps: 3,
    ...generous,
  })
  expect(samples).toEqual({ call: [4, 5] })
})

test("no round begins when the time is over, but one is always measured", async () => {
  const samples = await measureInTurns([async () => ({ value: 1 })], {
    rounds: 50,
    warmUps: 0,
    budgetMs: -1,
  })
  expect(samples).toEqual({ value: [1] })
})

test("a subject that measures nothing leaves no samples", async () => {
  expect(await measureInTurns([async () => ({})], { rounds: 1, warmUps: 0, ...generous })).toEqual({})
})
