/** The only place where the command line listens for signals. Its callers decide what a signal does. */

export const signalExitCodes = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143 } as const

/** Calls `onSignal` instead of ending the process, until disposed of. */
export function onSignals<Signal extends NodeJS.Signals>(
  signals: readonly Signal[],
  onSignal: (signal: Signal) => void,
): Disposable {
  const listening = new DisposableStack()
  for (const signal of signals) {
    const listener = () => onSignal(signal)
    process.on(signal, listener)
    listening.defer(() => process.off(signal, listener))
  }
  return listening
}
