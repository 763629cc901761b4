/** Signs of life in streams of e2b's agent, as often as the client asks for them. */

const keepaliveSecDefault = 90
const keepaliveSecMax = 3600

export function keepaliveMs(headers: Headers): number {
  const sec = Number(headers.get("keepalive-ping-interval") ?? keepaliveSecDefault)
  return (sec >= 1 && sec <= keepaliveSecMax ? sec : keepaliveSecDefault) * 1000
}

/** Yields "quiet" whenever nothing has come for so long. */
export async function* withQuiet<T>(source: AsyncIterable<T>, quietMs: number): AsyncGenerator<T | "quiet"> {
  const items = source[Symbol.asyncIterator]()
  try {
    let next = items.next()
    for (;;) {
      const quiet = Promise.withResolvers<"quiet">()
      const timer = setTimeout(() => quiet.resolve("quiet"), quietMs)
      const item = await Promise.race([next, quiet.promise]).finally(() => clearTimeout(timer))
      if (item === "quiet") yield "quiet"
      else if (item.done) return
      else {
        yield item.value
        next = items.next()
      }
    }
  } finally {
    void items.return?.()
  }
}
