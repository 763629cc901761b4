/**
 * The image `docker`: `minimal` with Docker Engine, which runs already when a sandbox is made. Its containers use the
 * guest's kernel, and each sandbox has an engine of its own.
 */
import type { Recipe } from "../src/image/recipe.ts"
import { minimal } from "./minimal.ts"

/**
 * - Debian's crun would start a container with a tenth less work than runc, but `docker update` fails with it.
 * - Without a proxy process per published port the kernel alone forwards; guests have no IPv6.
 * - Logs of containers have a bound. Docker's own default has none.
 */
const engineSettings = JSON.stringify(
  {
    "storage-driver": "overlay2",
    "userland-proxy": false,
    ip6tables: false,
    "log-driver": "json-file",
    "log-opts": { "max-size": "10m", "max-file": "3" },
  },
  null,
  2,
)

/** Only the engine uses it, and needs no interface for Kubernetes. */
const containerdSettings = `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
`

/**
 * The engine would start containerd itself, and give up if that takes 15 s, as it may on a busy host.
 *
 * C's resolver looks at /etc/resolv.conf for each name, where Go's may use the template's for five more seconds.
 *
 * The first container loads the kernel's modules and the programs' pages, so the template runs it: copies have both
 * in memory. The key that the engine takes its id from is removed after it was read, so that the next start of the
 * engine in a copy makes another.
 */
const startEngine = `#!/bin/sh
# Starts Docker Engine, in the template and at each boot.
set -eu
done=/run/docker-engine.ready
prepare() {
  until docker info > /dev/null 2>&1; do sleep 0.2; done
  if [ "$(hostname)" = template ]; then
    tar -C /run/bhatti/kit/bin -c busybox | docker import - warm-up > /dev/null
    docker run --rm --publish 127.0.0.1:1:1 warm-up /busybox true
    docker image rm warm-up > /dev/null
    docker-compose version > /dev/null
    rm -f /etc/docker/key.json
  fi
  : > "$done"
}
rm -f "$done"
while :; do
  containerd > /var/log/containerd.log 2>&1
  sleep 1
done &
prepare &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
GODEBUG=netdns=cgo exec dockerd --raw-logs --containerd /run/containerd/containerd.sock
`

/** Compose as a subcommand of \`docker\`, as newer releases have it. */
const composePlugin = `#!/bin/sh
if [ "\${1:-}" = docker-cli-plugin-metadata ]; then
  echo '{"SchemaVersion":"0.1.0","Vendor":"Debian","Version":"1.29.2","ShortDescription":"Docker Compose"}'
  exit
fi
[ "\${1:-}" != compose ] || shift
exec docker-compose "$@"
`

export const docker: Recipe = {
  ...minimal,
  name: "docker",
  summary: "minimal with Docker Engine and compose, which run already",
  sizeMib: 20_480,
  packages: [...minimal.packages, "docker-compose", "docker.io", "iptables", "pigz", "xz-utils"],
  customize: `${minimal.customize}
chroot "$1" usermod --append --groups docker lohar
install -d "$1/etc/containerd" "$1/etc/docker" "$1/usr/libexec/docker/cli-plugins"
cat > "$1/etc/containerd/config.toml" <<'END'
${containerdSettings}END
cat > "$1/etc/docker/daemon.json" <<'END'
${engineSettings}
END
cat > "$1/usr/local/sbin/start-docker-engine" <<'END'
${startEngine}END
cat > "$1/usr/libexec/docker/cli-plugins/docker-compose" <<'END'
${composePlugin}END
chmod 0755 "$1/usr/local/sbin/start-docker-engine" "$1/usr/libexec/docker/cli-plugins/docker-compose"
`,
  programs: {
    start: "exec sudo start-docker-engine",
    ready: "test -e /run/docker-engine.ready",
  },
}
