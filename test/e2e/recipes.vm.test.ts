/**
 * The images that the host makes when the first user wants one. That takes minutes and downloads packages, so this runs
 * only with BHATTI_TEST_LONG=1; BHATTI_TEST_IMAGE_CACHE names an empty directory to begin with a bare cache.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { cacheDir, type Installation, install, until } from "../support/installation.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
if (!isAsked) console.error("BHATTI_TEST_LONG=1 also builds the images python and node")

const imageCache = process.env["BHATTI_TEST_IMAGE_CACHE"] ?? cacheDir

describe.skipIf(!isAsked)("an image that is made at need", () => {
  let own: Installation
  let other: string
  beforeAll(async () => {
    own = await install({ config: `cache_dir: ${imageCache}` })
    other = await own.addUser("other")
  }, 600_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
  }, 60_000)

  /** Two users want it at once. */
  async function create(image: string): Promise<void> {
    expect((await own.bhatti(["image", "list"])).stdout).toMatch(
      new RegExp(`^${image} +host +not installed`, "m"),
    )
    const words = ["create", "--name", image, "--image", image]
    const options = { deadlineMs: 1_200_000 }
    const made = await Promise.all([
      own.bhatti(words, options),
      own.bhatti(words, { ...options, key: other }),
    ])
    for (const one of made) {
      expect(one).toMatchObject({ exitCode: 0 })
      expect(one.stderr).toContain(`image ${image} is made first, once for all users of the host`)
      expect(one.stderr).toContain(`${image}: preparing`)
    }
    const events = JSON.parse((await own.bhatti(["events", "--type", "image.installed", "--json"])).stdout)
    expect(
      events.filter(({ meta }: { meta: { image: string } }) => meta.image === image).length,
    ).toBeLessThan(2)
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

  test("a build that is cancelled, or whose daemon ends, leaves no program and no image", async () => {
    const started = await own.bhatti(["image", "install", "--detach", "docker"])
    const id = started.stdout.trim()
    const builders = () => {
      const found = Bun.spawnSync(["pgrep", "-f", "--", `--data-dir ${own.dataDir} .* --image docker`])
      return found.stdout.toString().trim()
    }
    await until("it is being made", () => builders() !== "")
    expect((await own.bhatti(["task", "cancel", id])).exitCode).toBe(0)
    expect(builders()).toBe("")
    await own.bhatti(["image", "install", "--detach", "docker"])
    await until("it is being made again", () => builders() !== "")
    await own.stopDaemon("SIGTERM")
    expect(builders()).toBe("")
    await own.startDaemon()
    expect((await own.bhatti(["image", "list"])).stdout).toMatch(/^docker +host +not installed/m)
    expect((await own.bhatti(["task", "list"])).stdout).toContain("interrupted")
  }, 120_000)
})
