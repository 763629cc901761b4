/** Work at the end of what a signal guards. */

/** Calls `work` once; immediately if the signal is aborted already. Dispose of the result when it is of no interest. */
export function whenAborted(signal: AbortSignal, work: () => void): Disposable {
  if (signal.aborted) work()
  else signal.addEventListener("abort", work, { once: true })
  // A signal that lives long would retain every listener's objects.
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", work) }
}
