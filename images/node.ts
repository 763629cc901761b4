/** The image `node`: `minimal` with Node.js, npm and what native modules are built with. */
import type { Recipe } from "../src/image/recipe.ts"
import { minimal } from "./minimal.ts"
import { nodePackages, ownGlobals, unpackNode } from "./nodejs.ts"

export const node: Recipe = {
  ...minimal,
  name: "node",
  summary: "minimal with Node.js 26, npm and compilers for native modules",
  packages: [...minimal.packages, "g++", "gcc", "libc6-dev", "make"],
  npmPackages: nodePackages,
  customize: `
${unpackNode}
${ownGlobals}
${minimal.customize}`,
}
