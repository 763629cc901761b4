/** Dockerfiles: what they mean, and what is refused with its line. */

import { describe, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { parseDockerfile } from "./parse.ts"
import { basesOf, emptyConfig, planStage, targetOf, unusedArguments } from "./plan.ts"

function plan(text: string, { args = {}, base = emptyConfig, stage = -1 } = {}) {
  const file = parseDockerfile(text)
  return planStage(file, stage < 0 ? file.stages.length - 1 : stage, { args, base })
}
function refusalOf(text: string): string {
  try {
    const file = parseDockerfile(text)
    basesOf(file, {})
    for (const index of file.stages.keys()) planStage(file, index, { args: {}, base: emptyConfig })
  } catch (error) {
    if (error instanceof AppError) return error.message
    throw error
  }
  return "taken"
}
const steps = (text: string, options = {}) =>
  plan(text, options).steps.map((step) => (step.kind === "run" ? step.argv.at(-1) : step.text))

describe("lines", () => {
  test("continued lines are one, without the comments and empty lines between", () => {
    expect(steps("FROM a\nRUN one \\\n  # not this\n\n  two\n# end\nRUN three")).toEqual([
      "one   two",
      "three",
    ])
  })

  test("the escape character is the one that the first lines name", () => {
    expect(steps("# escape=`\nFROM a\nRUN dir `\n c:\\")).toEqual(["dir  c:\\"])
  })

  test("an error names the line on which its instruction begins", () => {
    expect(refusalOf("# a comment\n\nFROM a\nRUN one \\\n two\nBOGUS x")).toBe(
      "Dockerfile, line 6: unknown instruction BOGUS",
    )
  })

  test("a here document is a script, the input of a command, or a file", () => {
    const { steps } = plan(
      "FROM a\nARG N=7\nRUN <<EOF\necho $N\nEOF\nRUN cat <<-'X' >/x\n\tin\n\tX\nRUN <<S\n#!/usr/bin/env python3\nprint(1)\nS\nCOPY <<A <<\"B\" /d/\na $N\nA\nb $N\nB\n",
    )
    expect(steps).toMatchObject([
      { argv: ["/bin/sh", "-c", "echo $N\n"], script: null },
      { argv: ["/bin/sh", "-c", "cat <<-'X' >/x\nin\nX\n"] },
      { script: "#!/usr/bin/env python3\nprint(1)\n" },
      {
        inline: [
          { name: "A", text: "a 7\n" },
          { name: "B", text: "b $N\n" },
        ],
        target: "/d/",
        sources: [],
      },
    ])
    expect(refusalOf("FROM a\nRUN <<EOF\nx")).toBe('Dockerfile, line 2: the here document "EOF" has no end')
    expect(steps[0]?.kind === "run" && steps[0].env).toEqual({ N: "7" })
  })

  test("a << in quotes opens no here document", () => {
    expect(steps('FROM a\nRUN echo "x <<EOF y"\nRUN b')).toEqual(['echo "x <<EOF y"', "b"])
  })
})

describe("variables", () => {
  test("are replaced as a shell does, with defaults, in the scope of their stage", () => {
    const text = `ARG V=1
FROM base:$V AS one
ARG V
ARG W=\${V:-x}\${NONE:-d}\${V:+set}
ENV A="$W b" B='$W' C=\\$W
FROM one
ENV D=\${A:-lost}
ENV E=$V-
`
    const file = parseDockerfile(text)
    expect(basesOf(file, { V: "2" })).toEqual([
      { kind: "image", name: "base:2" },
      { kind: "stage", index: 0 },
    ])
    const one = planStage(file, 0, { args: { V: "2" }, base: emptyConfig })
    expect(one.config.env).toEqual({ A: "2dset b", B: "$W", C: "$W" })
    expect(planStage(file, 1, { args: {}, base: one.config }).config.env).toMatchObject({
      D: "2dset b",
      E: "-",
    })
    expect(unusedArguments(file, { V: "", Z: "" })).toEqual(["Z"])
  })

  test("of one ENV do not see each other, and the older form takes the rest of the line", () => {
    expect(plan('FROM a\nENV a=1\nENV a=2 b=$a\nENV c d "e"').config.env).toEqual({
      a: "2",
      b: "1",
      c: "d e",
    })
  })

  test("in a command are left to the shell, and ENV comes before ARG", () => {
    const [step] = plan("FROM a\nARG X=arg\nARG Y=y\nENV X=env\nRUN echo $X").steps
    expect(step).toMatchObject({ argv: ["/bin/sh", "-c", "echo $X"], env: { X: "env", Y: "y" } })
  })
})

describe("a stage", () => {
  test("inherits its base's configuration and changes it", () => {
    const base = { ...emptyConfig, cmd: ["old"], env: { PATH: "/bin" }, ports: [80], workdir: "/srv" }
    const { config, steps, ignored } = plan(
      `FROM a
WORKDIR app
USER 1000:1000
EXPOSE 443 53/udp 8000-8001
LABEL a=b "c d"='e f'
SHELL ["/bin/bash", "-ec"]
ENTRYPOINT run it
CMD ["x"]
VOLUME /v
HEALTHCHECK NONE`,
      { base },
    )
    expect(config).toEqual({
      user: "1000:1000",
      workdir: "/srv/app",
      env: { PATH: "/bin" },
      entrypoint: ["/bin/bash", "-ec", "run it"],
      cmd: ["x"],
      ports: [80, 443, 8000, 8001],
      labels: { a: "b", "c d": "e f" },
    })
    expect(steps).toMatchObject([{ kind: "workdir", path: "/srv/app" }])
    expect(ignored).toHaveLength(3)
    expect(plan('FROM a\nENTRYPOINT ["e"]', { base }).config.cmd).toEqual([])
  })

  test("copies from the context, an earlier stage or an image, to a path that is relative to its directory", () => {
    const text = `FROM a AS one
FROM b
WORKDIR /w
COPY --chown=1:2 --chmod=755 a b dir/
COPY --from=one /x y
COPY --from=0 /x .
COPY --from=other:1 ["a b", "/c d"]`
    expect(plan(text).steps.slice(1)).toMatchObject([
      { sources: ["a", "b"], target: "/w/dir/", chown: "1:2", chmod: 0o755, from: null },
      { from: { kind: "stage", index: 0 }, target: "/w/y" },
      { from: { kind: "stage", index: 0 }, target: "/w/" },
      { from: { kind: "image", name: "other:1" }, sources: ["a b"], target: "/c d" },
    ])
    expect(targetOf(parseDockerfile(text), "ONE")).toBe(0)
  })

  test("runs with the mounts that it names", () => {
    const [step] = plan(
      "FROM a\nRUN --mount=type=secret,id=t,target=/t,mode=0440,required=true --mount=type=cache,target=/c,sharing=locked x",
    ).steps
    expect(step).toMatchObject({
      mounts: [
        { type: "secret", id: "t", target: "/t", mode: "0440", isRequired: true },
        { type: "cache", target: "/c" },
      ],
    })
  })
})

describe("a Dockerfile is refused", () => {
  for (const [text, refusal] of [
    ["", "line 1: it has no FROM"],
    ["RUN x", "line 1: RUN before the first FROM"],
    ["FROM a b", "line 1: FROM is not FROM IMAGE [AS NAME]"],
    ["FROM a AS x\nFROM b AS X", 'line 2: there are two stages "X"'],
    [
      "FROM --platform=linux/arm64 a",
      "line 1: sandboxes are linux/amd64, so FROM --platform=linux/arm64 is not supported",
    ],
    ["FROM $X", "line 1: FROM $X is empty"],
    ["FROM a\nONBUILD RUN x", "line 2: ONBUILD is not supported"],
    ["FROM a\nADD https://x/y /z", "line 2: ADD of a URL is not supported"],
    ["FROM a\nCOPY x", "line 2: COPY is not COPY SOURCE… TARGET"],
    ["FROM a\nCOPY a b c", "line 2: the target of several sources does not end in a slash"],
    ["FROM a\nCOPY --parents a b", "line 2: COPY --parents is not supported"],
    ["FROM a\nCOPY --chmod=u+x a b", "line 2: --chmod=u+x is not an octal mode, such as 755"],
    ["FROM a\nCOPY --from=1 a b", "line 2: there is no earlier stage 1"],
    ["FROM a\nRUN --mount=type=bind,target=/x y", "line 2: RUN --mount=type=bind is not supported"],
    ["FROM a\nRUN --mount=type=ssh y", "line 2: RUN --mount=type=ssh without a target is not supported"],
    ["FROM a\nRUN --network=none y", "line 2: RUN --network=none is not supported"],
    ["FROM a\nRUN --security=insecure y", "line 2: RUN --security is not supported"],
    ["FROM a\nENV X", "line 2: ENV is not ENV NAME=VALUE"],
    ['FROM a\nENV X="y', 'line 2: a " has no end'],
    [`FROM a\nENV X=\${Y#z}`, `line 2: \${Y#z} is not supported`],
    [`FROM a\nENV X=\${Y:?needed}`, "line 2: Y: needed"],
    ["FROM a\nEXPOSE web", 'line 2: "web" is no port'],
    ["FROM a\nSHELL bash", 'line 2: SHELL is not a list, such as ["/bin/bash", "-c"]'],
    ["FROM a\nCMD", "line 2: CMD has no arguments"],
  ] as const)
    test(`with its line: ${refusal}`, () => expect(refusalOf(text)).toBe(`Dockerfile, ${refusal}`))
})
