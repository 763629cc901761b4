/** Warnings about this host's isolation between sandboxes, one line each, with the same wording everywhere. */

export const trust = {
  emulation: "software emulation: slow, and no security boundary against hostile code",
  reduced: "confinement is reduced: each QEMU sees the host as an unprivileged user does",
  notRoot:
    "the daemon is not root: sandboxes share its user id, reach no network, and have no limits on the host",
} as const
