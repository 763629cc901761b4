/** Sources of the address and the key, and the errors of a bad configuration file. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { type Environment, loadSettings } from "./settings.ts"

let home = ""
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "bhatti-settings-"))
  mkdirSync(join(home, ".bhatti"))
})
afterAll(() => rmSync(home, { recursive: true }))

const noFlags = { url: undefined, token: undefined }

function writeConfig(text: string, name = ".bhatti/config.yaml"): string {
  const path = join(home, name)
  writeFileSync(path, text)
  return path
}

function load(env: Environment = {}, flags: { url?: string; token?: string } = {}) {
  return loadSettings({ ...noFlags, ...flags }, { HOME: home, ...env })
}

async function refusal(loading: Promise<unknown>): Promise<AppError> {
  const error = await loading.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AppError)) throw new Error("it was not refused", { cause: error })
  return error
}

const fromEnv = { BHATTI_URL: "http://env:1", BHATTI_TOKEN: "env-key" }

test("a flag wins over the file, the file over the environment, and all over the default", async () => {
  const path = writeConfig("api_url: http://file:1\nauth_token: file-key\n")
  expect(await load(fromEnv, { url: "http://flag:1", token: "flag-key" })).toEqual({
    url: "http://flag:1",
    token: "flag-key",
    tokenSource: "--token",
  })
  expect(await load(fromEnv)).toEqual({ url: "http://file:1", token: "file-key", tokenSource: path })
  writeConfig("")
  expect(await load(fromEnv)).toEqual({ url: "http://env:1", token: "env-key", tokenSource: "BHATTI_TOKEN" })
  expect(await load()).toEqual({ url: "http://localhost:8080", token: undefined, tokenSource: undefined })
})

test("address and key are looked up each on its own", async () => {
  writeConfig("api_url: http://file:1\n")
  expect(await load(fromEnv)).toMatchObject({ url: "http://file:1", token: "env-key" })
})

test("without a file the environment decides; empty values count as none", async () => {
  expect(await load({ ...fromEnv, HOME: "/nonexistent" })).toMatchObject({ url: "http://env:1" })
  const empty = { HOME: "/nonexistent", BHATTI_URL: "", BHATTI_TOKEN: "", BHATTI_CONFIG: "" }
  expect(await load(empty)).toEqual({
    url: "http://localhost:8080",
    token: undefined,
    tokenSource: undefined,
  })
})

test("BHATTI_CONFIG names the file instead, and keys of the daemon in it do not matter", async () => {
  writeConfig("api_url: http://home:1\n")
  const path = writeConfig("api_url: http://named:1\nlisten: 127.0.0.1:1\npool: 3\n", "named.yaml")
  expect(await load({ BHATTI_CONFIG: path })).toMatchObject({ url: "http://named:1" })
})

test("a named file that is not there is an error", async () => {
  const error = await refusal(load({ BHATTI_CONFIG: join(home, "nosuch.yaml") }))
  expect(error.message).toContain("nosuch.yaml, which BHATTI_CONFIG names")
})

test("a bad file is a clear error that never shows the key", async () => {
  for (const [text, problem] of [
    ["api_url: [unclosed\nauth_token: secret-key", "is not valid YAML"],
    ["- a list", "must hold lines of `key: value`"],
    ["just text", "must hold lines of `key: value`"],
    ["api_url: 8080", "has an api_url that is not text"],
    ["auth_token: {a: secret-key}", "has an auth_token that is not text"],
    ["api_url: ftp://somewhere", "is not the address of a daemon"],
    ["auth_token: sécret-key", "holds characters that no key has"],
  ]) {
    const path = writeConfig(text ?? "")
    const error = await refusal(load())
    expect(error.message).toContain(problem ?? "")
    expect(error.message).toContain(path)
    expect(`${error.message} ${error.hint}`).not.toContain("cret-key")
  }
})

test("a file that cannot be read is an error, not an absent file", async () => {
  const error = await refusal(load({ BHATTI_CONFIG: home }))
  expect(error.message).toContain("cannot be read (EISDIR)")
})

test("an address may lack its scheme and end in a slash", async () => {
  writeConfig("")
  expect(await load({}, { url: "localhost:9090" })).toMatchObject({ url: "http://localhost:9090" })
  expect(await load({}, { url: "https://api.example.com/" })).toMatchObject({
    url: "https://api.example.com",
  })
  expect(await load({}, { url: "https://example.com/bhatti/" })).toMatchObject({
    url: "https://example.com/bhatti",
  })
})

test("under sudo the file is the caller's", async () => {
  if (process.getuid?.() !== 0) return
  const passwd = (await Bun.file("/etc/passwd").text()).split("\n").map((line) => line.split(":"))
  const [name, , , , , callerHome] = passwd.find(([name]) => name === "nobody") ?? []
  if (name === undefined || callerHome === undefined) return
  writeConfig("api_url: http://root:1\n")
  const { url } = await load({ SUDO_USER: name, BHATTI_URL: "http://env:1" })
  expect(url).not.toBe("http://root:1")
  expect(await load({ SUDO_USER: "root" })).toMatchObject({ url: "http://root:1" })
})
