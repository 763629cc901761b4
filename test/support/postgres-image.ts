/** An image with PostgreSQL that runs already, made by the project's own means: a recipe with a start command. */

import { minimal } from "../../images/minimal.ts"
import { installImage } from "../../src/image/install.ts"
import { buildKernel } from "../../src/image/kernel.ts"
import type { Recipe } from "../../src/image/recipe.ts"
import { buildRecipe } from "../../src/image/rootfs.ts"

const cluster = "/etc/postgresql/15/main"

const programs = {
  start: `sudo install -d -o postgres -g postgres /run/postgresql
exec sudo -u postgres /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c config_file=${cluster}/postgresql.conf`,
  ready: `psql -h 127.0.0.1 -U postgres -c "create table if not exists made (id uuid primary key default gen_random_uuid())" && psql -h 127.0.0.1 -U postgres -c "insert into made default values" -c checkpoint`,
}

const postgres: Recipe = {
  ...minimal,
  name: "postgres",
  packages: [...minimal.packages, "postgresql-15"],
  programs,
  customize: `${minimal.customize}
sed -i 's/peer$/trust/; s/scram-sha-256$/trust/' "$1${cluster}/pg_hba.conf"
install -d "$1/etc/bhatti/clone.d" "$1${cluster}/conf.d"
cat > "$1/etc/bhatti/clone.d/10-postgres" <<'END'
#!/bin/sh
echo "bhatti.clone = '$BHATTI_MACHINE_ID'" > ${cluster}/conf.d/clone.conf
read -r pid < /var/lib/postgresql/15/main/postmaster.pid && kill -HUP "$pid"
END
chmod 0755 "$1/etc/bhatti/clone.d/10-postgres"
`,
}

/** The same without the program that runs in each clone. */
export const postgresWithoutHook: Recipe = {
  ...postgres,
  name: "postgres-without-hook",
  programs: { ...programs, start: `sudo rm -r /etc/bhatti/clone.d\n${programs.start}` },
}

/** Builds images, or takes them from the cache, and installs them in a data directory. */
export async function installPostgres(
  dataDir: string,
  options: { cacheDir: string; agentPath: string },
): Promise<void> {
  const report = () => undefined
  const kernel = await buildKernel({ ...options, report })
  for (const recipe of [postgres, postgresWithoutHook]) {
    await installImage(dataDir, await buildRecipe({ recipe, cacheDir: options.cacheDir, kernel, report }))
  }
}
