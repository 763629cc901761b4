/** An image with compilers and interpreters of many languages, for the comparison of machines. */

import { workspace } from "../../images/workspace.ts"
import { installImage } from "../../src/image/install.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import type { Recipe } from "../../src/image/recipe.ts"
import { buildRecipe } from "../../src/image/rootfs.ts"
import { languagePackages } from "../programs/languages.ts"

export const programsImage: Recipe = {
  ...workspace,
  name: "programs",
  packages: [...workspace.packages, ...languagePackages],
}

/** Builds it, which takes minutes, or takes it from the cache, and installs it in a data directory. */
export async function installProgramsImage(
  dataDir: string,
  options: { cacheDir: string; agentPath: string },
): Promise<void> {
  const report = () => undefined
  const kernel = await buildKernel({ ...options, report })
  await installImage(
    dataDir,
    await buildRecipe({ recipe: programsImage, cacheDir: options.cacheDir, kernel, report }),
  )
}
