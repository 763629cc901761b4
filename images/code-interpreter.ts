/**
 * The image `code-interpreter`: `python` with the libraries that data is looked at with, and a Jupyter kernel that runs
 * already when a sandbox is made, behind a small server.
 */
import type { Recipe } from "../src/image/recipe.ts"
import kernel from "./code-interpreter/kernel.py" with { type: "text" }
import server from "./code-interpreter/server.py" with { type: "text" }
import { python } from "./python.ts"

/** The kernel reads it before its first code in a copy. In memory, since it has the sandbox's secrets. */
const writeVariables = `#!/bin/sh
umask 077
env -0 > /run/code-interpreter.env
chown lohar: /run/code-interpreter.env
`

export const codeInterpreter: Recipe = {
  ...python,
  name: "code-interpreter",
  summary: "python with pandas, numpy, scipy and matplotlib, and a Jupyter kernel that runs already",
  packages: [
    ...python.packages,
    "python3-ipykernel",
    "python3-jupyter-client",
    "python3-matplotlib",
    "python3-numpy",
    "python3-openpyxl",
    "python3-pandas",
    "python3-pil",
    "python3-requests",
    "python3-scipy",
    "python3-tornado",
  ],
  customize: `${python.customize}
install -d "$1/etc/bhatti/clone.d" "$1/etc/ipython"
cat > "$1/usr/local/bin/code-interpreter" <<'END'
${server}END
cat > "$1/usr/lib/python3/dist-packages/code_interpreter_kernel.py" <<'END'
${kernel}END
printf 'c = get_config()\\nc.InteractiveShellApp.extensions = ["code_interpreter_kernel"]\\n' > "$1/etc/ipython/ipython_config.py"
cat > "$1/etc/bhatti/clone.d/10-code-interpreter" <<'END'
${writeVariables}END
chmod 0755 "$1/usr/local/bin/code-interpreter" "$1/etc/bhatti/clone.d/10-code-interpreter"
`,
  programs: {
    start: "exec code-interpreter",
    ready: "curl -sf localhost:49999/health",
  },
}
