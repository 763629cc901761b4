/**
 * The image `workspace`, the default: `minimal` with what most projects need to build and run, so that a fresh sandbox
 * can start with `npm install` or `pip install`. docs/images.md lists it for users. Nothing in it runs by itself.
 */
import type { Recipe } from "../src/image/recipe.ts"
import { minimal } from "./minimal.ts"
import { nodePackages, ownGlobals, unpackNode } from "./nodejs.ts"

export const workspace: Recipe = {
  ...minimal,
  name: "workspace",
  summary: "Node.js, Python, C and C++ with what most projects need to build and run",
  packages: [
    ...minimal.packages,
    "bzip2",
    "cron",
    "file",
    "g++",
    "gcc",
    "jq",
    "libc6-dev",
    "make",
    "openssh-client",
    "patch",
    "pkg-config",
    "python3-dev",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "rsync",
    "tmux",
    "unzip",
    "wget",
    "xz-utils",
    "zip",
  ],
  npmPackages: nodePackages,
  customize: `
${unpackNode}
# \`npm install --global\` and \`pip install\` write to ~/.local, which is on every command's PATH and needs no root.
${ownGlobals}
printf '[global]\\nbreak-system-packages = true\\ndisable-pip-version-check = true\\n' > "$1/etc/pip.conf"
ln -s python3 "$1/usr/bin/python"
${minimal.customize}`,
}
