/**
 * The images that are built only where an operator asks for them. Building takes minutes and downloads packages, so
 * this runs only with BHATTI_TEST_LONG=1.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { cacheDir, type Installation, install } from "../support/installation.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
if (!isAsked) console.error("BHATTI_TEST_LONG=1 also builds the images python and node")

describe.skipIf(!isAsked)("an image that is built at need", () => {
  let own: Installation
  beforeAll(async () => {
    own = await install()
  }, 600_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 60_000)

  async function create(image: string): Promise<void> {
    const early = await own.bhatti(["create", "--name", image, "--image", image])
    expect(early.stderr).toContain(`sudo bhatti init --image ${image}`)
    const init = ["init", "--data-dir", own.dataDir, "--cache-dir", cacheDir, "--image", image]
    expect((await own.bhatti(init, { deadlineMs: 900_000 })).exitCode).toBe(0)
    const made = await own.bhatti(["create", "--name", image, "--image", image], { deadlineMs: 300_000 })
    expect(made).toMatchObject({ exitCode: 0 })
  }
  const sh = async (sandbox: string, script: string) =>
    (await own.bhatti(["exec", sandbox, "--", "bash", "-c", script], { deadlineMs: 280_000 })).stdout.trim()

  test("python: an environment with pip, and an extension in C", async () => {
    await create("python")
    const script = `
      python -m venv env && env/bin/pip --version | grep -c 'pip '
      printf '#include <Python.h>\\nstatic struct PyModuleDef m={PyModuleDef_HEAD_INIT,"ours",0,-1,0};PyMODINIT_FUNC PyInit_ours(void){return PyModule_Create(&m);}\\n' > ours.c
      gcc -shared -fPIC $(python3-config --includes) -o ours.so ours.c && python -c 'import ours; print(ours.__name__)'
      command -v node || echo no node`
    expect(await sh("python", script)).toBe("1\nours\nno node")
  }, 1_200_000)

  test("node: npm runs a build, and its global packages belong to the user", async () => {
    await create("node")
    const script = `
      mkdir app && cd app
      echo '{"name":"app","version":"1.0.0","scripts":{"build":"node -p 6*7"}}' > package.json
      npm run build --silent && npm config get prefix && command -v g++ >/dev/null && echo g++
      command -v pip || echo no pip`
    expect(await sh("node", script)).toBe("42\n/home/lohar/.local\ng++\nno pip")
  }, 1_200_000)
})
