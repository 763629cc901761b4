/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A library that is preloaded into an unmodified QEMU, a zygote, which then can be forked into machines. This header has
 * the protocol between daemon and zygote, and the interfaces between the library's parts.
 *
 * Protocol. The zygote listens at its descriptor ZYGOTE_CONTROL, a unix socket of type SOCK_SEQPACKET. A connection
 * carries one request, which is one message: a struct zygote_request with the descriptors it names as SCM_RIGHTS. The
 * answer is one message of text, and then the connection ends:
 *
 *   "ok"             done; after ZYGOTE_FORK the machine runs, and the sender of the message is that machine's process
 *   "busy WORDS"     not now: the same request may succeed later
 *   "failed WORDS"   the step that failed, and why; no machine runs
 *
 * The kernel tells the daemon the sender's pid and user (SO_PASSCRED), whatever namespace the sender is in. A connection
 * that ends without an answer means that the process ended. src/machine/zygote-control.ts is the other end.
 */
#ifndef BHATTI_ZYGOTE_H
#define BHATTI_ZYGOTE_H

#include <stdint.h>

#define ZYGOTE_VERSION 1

enum zygote_operation {
    /* Says whether this QEMU can be forked, as far as its functions show. */
    ZYGOTE_CHECK = 1,
    /* Stops the vCPUs and writes everything to the disk. The zygote never runs again. */
    ZYGOTE_STOP = 2,
    /* Makes a machine. "busy" while threads of the zygote still work. */
    ZYGOTE_FORK = 3,
};

/*
 * A descriptor's meaning. Up to 16 these are the numbers under which QEMU inherits them (`descriptors` in
 * src/machine/command-line.ts).
 */
enum zygote_role {
    /* QEMU's standard output and error, the writing end of the pipe whose reading end is ZYGOTE_STDERR. */
    ZYGOTE_OUTPUT = 1,
    ZYGOTE_MEMORY = 3,
    ZYGOTE_QMP_SOCKET = 4,
    ZYGOTE_AGENT_SOCKET = 5,
    ZYGOTE_OVERLAY_DISK = 6,
    ZYGOTE_TEMPLATE_DISK = 7,
    ZYGOTE_BASE_DISK = 8,
    ZYGOTE_TAP = 9,
    ZYGOTE_STATE = 10,
    ZYGOTE_KERNEL = 11,
    ZYGOTE_INITRAMFS = 12,
    ZYGOTE_SAVED = 13,
    ZYGOTE_SHARED = 14,
    ZYGOTE_STDERR = 15,
    ZYGOTE_KIT_DISK = 16,
    /* This library, and the socket of this protocol. */
    ZYGOTE_LIBRARY = 17,
    ZYGOTE_CONTROL = 18,
    /* For the confinement: cgroup.procs of the machine's control group, open for writing; the jail's root. */
    ZYGOTE_CGROUP = 19,
    ZYGOTE_ROOT = 20,
    ZYGOTE_ROLES = 21,
};

/* A child must get its own of these wherever the zygote has one. It keeps the zygote's of the others: read-only files. */
#define ZYGOTE_OWN_ROLES                                                                                               \
    (1u << ZYGOTE_OUTPUT | 1u << ZYGOTE_QMP_SOCKET | 1u << ZYGOTE_AGENT_SOCKET | 1u << ZYGOTE_OVERLAY_DISK |           \
     1u << ZYGOTE_TAP | 1u << ZYGOTE_SAVED | 1u << ZYGOTE_SHARED | 1u << ZYGOTE_STDERR)

/* The child's confinement, as `Confinement` in src/machine/process.ts. */
struct confine_order {
    /* 1: own namespaces and root; 0: the child stays in the zygote's. */
    uint32_t is_full;
    /* User and group; UINT32_MAX: the zygote's. */
    uint32_t uid;
    /* Maximum length of each file that it writes to. */
    uint64_t file_bytes;
    int32_t niceness;
    uint32_t reserved;
};

/* All numbers are little-endian. `roles` has a bit for each descriptor of the message, which come in ascending order. */
struct zygote_request {
    uint32_t version;
    uint32_t operation;
    uint32_t roles;
    uint32_t reserved;
    struct confine_order confine;
};

/*
 * The confinement (confine.c). Each function returns 0, or an errno with `*step` naming, in words, what failed. The
 * child of a failed step exits before any vCPU exists.
 */

/* In the zygote's main thread before the fork, such as for namespaces that only a new process enters. */
int confine_before_fork(const struct confine_order *order, const int descriptors[ZYGOTE_ROLES], const char **step);

/* In the zygote after the fork, whether it succeeded or not. A zygote that fails here must not be forked again. */
int confine_after_fork(const struct confine_order *order, const char **step);

/*
 * In the child, which has only the forking thread so far (QEMU's fork handlers run later), has its own descriptors and
 * mappings, and holds none that is not its own but `descriptors`, by role and -1 where there is none. The caller closes
 * ZYGOTE_CGROUP and ZYGOTE_ROOT afterwards. Every later thread inherits what it sets. Afterwards QEMU makes threads,
 * accepts connections, maps and protects memory, and opens no file.
 */
int confine_child(const struct confine_order *order, const int descriptors[ZYGOTE_ROLES], const char **step);

/* The descriptors and mappings of a child (inherited.c). On failure they write the reason, at most `bytes`, to `words`. */

/* Remembers, at the zygote's start, which file belongs to which role. */
void inherited_remember(void);

/*
 * Replaces each descriptor of the zygote's by the child's own (`fresh`, by role, -1 if none), each mapping of the shared
 * memory too, makes anew what the kernel would share (events, signals), and fails on anything that it does not know.
 * `keep` is the connection of the request.
 */
int inherited_replace(const int fresh[ZYGOTE_ROLES], int keep, char *words, int bytes);

/* QEMU as this library needs it (qemu.c). */

/* Returns 0 if all that is needed is there, else writes the reason. */
int qemu_examine(char *words, int bytes);
int qemu_is_running(void);
int qemu_stop(char *words, int bytes);
/* The number of threads that QEMU has without any that works. */
int qemu_threads_at_rest(void);
void qemu_allow_fork(void);
/* In the child: vCPU threads and monitor, and on it runs. */
int qemu_revive(char *words, int bytes);

#endif
