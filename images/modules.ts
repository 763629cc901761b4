/**
 * Which modules of the guest kernel go where. The initramfs carries what is needed to reach the disk and the host;
 * the image carries a pruned /lib/modules for `modprobe`. Dependencies are added by the build and not listed.
 * No balloon and no virtio-mem: on a clone they would punch holes into RAM that other clones share.
 */

/** Loaded by the agent before anything else, in dependency order. */
export const initramfsModules: readonly string[] = [
  "virtio_pci",
  "virtio_blk",
  "virtio_console",
  "virtio_net",
  "virtio_rng",
]

/**
 * Modules that sandboxes use and that are not built into the kernel. Left out: drivers of hardware a sandbox never has,
 * network and big server filesystems (xfs and btrfs alone are 8 MB), exotic protocols; that is 70 of 90 MB. An entry is
 * a folder, taken whole, or one module.
 */
export const imageModules: readonly string[] = [
  // Containers: storage, networks, firewalls (all of netfilter, since rules name modules at run time), traffic control.
  "overlay",
  "kernel/net/bridge/",
  "kernel/net/netfilter/",
  "kernel/net/ipv4/",
  "kernel/net/ipv6/",
  "kernel/net/sched/",
  "kernel/net/xfrm/",
  "veth",
  "macvlan",
  "ipvlan",
  "vxlan",
  "dummy",
  "ifb",
  "8021q",
  // Tunnels and user-space filesystems.
  "tun",
  "wireguard",
  "fuse",
  "cuse",
  "tls",
  // `ss` and friends.
  "unix_diag",
  "af_packet_diag",
  "netlink_diag",
  // Disk images and volumes.
  "loop",
  "nbd",
  "zram",
  "dm-mod",
  "dm-crypt",
  "dm-snapshot",
  "dm-thin-pool",
  "dm-verity",
  "squashfs",
  "erofs",
  "isofs",
  "vfat",
  "exfat",
  "nls_utf8",
  "nls_ascii",
  "nls_iso8859-1",
  "binfmt_misc",
  // Ciphers and checksums, for all of the above and for programs that use AF_ALG.
  "kernel/crypto/",
  "kernel/arch/x86/crypto/",
]
