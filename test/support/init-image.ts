/** A small image whose entry point is systemd, made by the project's own means: a recipe of Debian's packages. */

import { minimal } from "../../images/minimal.ts"
import { installImage } from "../../src/image/install.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import type { Recipe } from "../../src/image/recipe.ts"
import { buildRecipe } from "../../src/image/rootfs.ts"

export const systemd: Recipe = {
  ...minimal,
  name: "systemd",
  packages: ["dbus", "iproute2", "kmod", "procps", "sudo", "systemd-sysv"],
  initSystem: true,
  // A boot without what a sandbox has no use for takes half the time.
  customize: `${minimal.customize}
ln -sf /lib/systemd/system/multi-user.target "$1/etc/systemd/system/default.target"
for unit in e2scrub_reap.service getty@.service systemd-update-utmp.service systemd-update-utmp-runlevel.service; do
  ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
`,
}

/** Builds it, or takes it from the cache, and installs it in a data directory. */
export async function installSystemd(
  dataDir: string,
  options: { cacheDir: string; agentPath: string },
): Promise<void> {
  const report = () => undefined
  const kernel = await buildKernel({ ...options, report })
  await installImage(
    dataDir,
    await buildRecipe({ recipe: systemd, cacheDir: options.cacheDir, kernel, report }),
  )
}
