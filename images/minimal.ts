/**
 * The image `minimal`: Debian with what a person or an agent expects in a shell, and nothing that runs by itself.
 * The build adds the kernel's modules. Changing anything here makes another image; sandboxes keep the one they have.
 */
import type { Recipe } from "../src/image/recipe.ts"

export const minimal: Recipe = {
  name: "minimal",
  summary: "A shell, Python, git and curl, and little else",
  suite: "bookworm",
  sizeMib: 8192,
  packages: [
    "ca-certificates",
    "curl",
    "git",
    "iproute2",
    "iputils-ping",
    // Docker and friends load their modules with modprobe.
    "kmod",
    "less",
    // The sandbox's own name always resolves, so that `sudo` never waits for a name server.
    "libnss-myhostname",
    // /etc/services and /etc/protocols.
    "netbase",
    "procps",
    "python3",
    "sudo",
    "vim-tiny",
  ],
  // Runs on the host with $1 as the image's root directory; `chroot "$1"` gives the image's own programs.
  customize: `
# The user that commands run as.
chroot "$1" useradd --create-home --uid 1000 --user-group --shell /bin/bash lohar
install -d -o 1000 -g 1000 -m 0755 "$1/workspace"
{
  printf 'lohar ALL=(ALL:ALL) NOPASSWD: ALL\\n'
  # Proxy and certificates that the operator offers hold for root too.
  printf 'Defaults env_keep += "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY"\\n'
  printf 'Defaults env_keep += "NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE"\\n'
} > "$1/etc/sudoers.d/lohar"
chmod 0440 "$1/etc/sudoers.d/lohar"

# Names and identity are given to each sandbox at its start.
printf 'sandbox\\n' > "$1/etc/hostname"
printf '127.0.0.1\\tlocalhost\\n::1\\tlocalhost ip6-localhost ip6-loopback\\n' > "$1/etc/hosts"
: > "$1/etc/resolv.conf"
: > "$1/etc/machine-id"
chmod 0644 "$1/etc/hostname" "$1/etc/hosts" "$1/etc/resolv.conf" "$1/etc/machine-id"
printf 'LANG=C.UTF-8\\n' | tee "$1/etc/default/locale" > "$1/etc/environment"
printf '# The root filesystem is mounted before anything reads this file.\\n' > "$1/etc/fstab"

# Packages that are installed later bring no manuals and translations either, and dpkg need not wait for the disk
# after every file. The lists come back with the first \`apt-get update\`.
cat > "$1/etc/dpkg/dpkg.cfg.d/sandbox" <<'END'
force-unsafe-io
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
END
printf 'Acquire::Languages "none";\\n' > "$1/etc/apt/apt.conf.d/90sandbox"
rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -rf "$1"/usr/share/man/* "$1"/usr/share/locale/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*
rm -rf "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1"/etc/*- "$1"/run/* "$1"/root/.[a-z]*_history
find "$1/usr/share/doc" ! -type d ! -name copyright -delete
find "$1/usr/share/doc" -type d -empty -delete
`,
}
