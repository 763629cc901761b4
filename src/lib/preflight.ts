/**
 * Parts of `bhatti doctor`: each adapter looks at what it needs of the host and judges it, apart from each other so
 * that every case can be tested. Looking changes nothing.
 */

import { closeSync, constants, existsSync, openSync } from "node:fs"
import { errorCodeOf } from "./error-code.ts"

export type Check = {
  area: string
  status: "ok" | "warn" | "fail"
  text: string
  /** How to fix it, preferably a command. */
  fix?: string
}

export function ok(area: string, text: string): Check {
  return { area, status: "ok", text }
}

export function warn(area: string, text: string, fix?: string): Check {
  return { area, status: "warn", text, ...(fix !== undefined && { fix }) }
}

export function fail(area: string, text: string, fix?: string): Check {
  return { area, status: "fail", text, ...(fix !== undefined && { fix }) }
}

const answerMs = 5000
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

export type Program = { path: string; version: string | undefined }

export function findProgram(name: string, versionArgument = "--version"): Program | undefined {
  const path = Bun.which(name, { PATH: searchPath })
  if (path === null) return undefined
  const { stdout, stderr } = Bun.spawnSync([path, versionArgument], { timeout: answerMs })
  const text = `${stdout}${stderr}`
  return { path, version: /(\d+\.\d+(\.\d+)?)/.exec(text)?.[1] ?? /-(\d{6})$/m.exec(text)?.[1] }
}

export function checkProgram(name: string, program: Program | undefined, debian: string): Check {
  return program === undefined
    ? fail(name, "is not installed", `sudo apt-get install ${debian}`)
    : ok(name, `${program.version ?? "some version"} at ${program.path}`)
}

/** Returns whether the program exists and exits with 0. */
export function succeeds(name: string, ...rest: string[]): boolean {
  const path = Bun.which(name, { PATH: searchPath })
  if (path === null) return false
  const silent = { stdout: "ignore", stderr: "ignore" } as const
  return Bun.spawnSync([path, ...rest], { timeout: answerMs, ...silent }).exitCode === 0
}

export type DeviceState = "missing" | "closed" | "opens"

export function deviceState(path: string): DeviceState {
  if (!existsSync(path)) return "missing"
  try {
    closeSync(openSync(path, constants.O_RDWR))
    return "opens"
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return "closed"
  }
}

export function sizeInWords(mib: number): string {
  const isWhole = mib >= 10 * 1024 || (mib >= 1024 && mib % 1024 === 0)
  return isWhole ? `${Math.floor(mib / 1024)} GB` : `${mib} MB`
}
