/** Exit codes with a meaning, the same as in shells and container tools. */

export const exitFailed = 1
export const exitUsage = 2
/** Of `exec` and `shell`, whose other codes are the command's own: bhatti failed. */
export const exitSandboxSide = 125
export const exitNotExecutable = 126
export const exitNotFound = 127
/** What a shell reports for a program that Ctrl-C ended. */
export const exitInterrupted = 130
/** What a shell reports for a program that SIGPIPE ended. */
export const exitBrokenPipe = 141
