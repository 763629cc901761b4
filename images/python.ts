/** The image `python`: `minimal` with pip, environments and what extensions are built with. */
import type { Recipe } from "../src/image/recipe.ts"
import { minimal } from "./minimal.ts"

export const python: Recipe = {
  ...minimal,
  name: "python",
  summary: "minimal with pip, venv and a C compiler for extensions",
  packages: [
    ...minimal.packages,
    "gcc",
    "libc6-dev",
    "make",
    "python3-dev",
    "python3-pip",
    "python3-venv",
    "python3-wheel",
  ],
  customize: `
printf '[global]\\nbreak-system-packages = true\\ndisable-pip-version-check = true\\n' > "$1/etc/pip.conf"
ln -s python3 "$1/usr/bin/python"
${minimal.customize}`,
}
