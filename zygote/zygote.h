/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A library that is preloaded into an unmodified QEMU, a zygote, which then can be forked into machines. This header has
 * the protocol between daemon and zygote, and the interfaces between the library's parts.
 *
 * Protocol. The zygote listens at its descriptor ZYGOTE_CONTROL, a unix socket of type SOCK_SEQPACKET. A connection
 * carries one request, which is one message: a struct zygote_request with the descriptors it names as SCM_RIGHTS. The
 * answer is one message of text, after those of confine_child, and then the connection ends:
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
    /* Stops the vCPUs and writes everything to the disk; "busy" while its threads still work. It never runs again. */
    ZYGOTE_STOP = 2,
    /* Makes a machine. */
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
    ZYGOTE_ROLES = 19,
};

/* A child must get its own of these wherever the zygote has one. It keeps the zygote's of the others: read-only files. */
#define ZYGOTE_OWN_ROLES                                                                                               \
    (1u << ZYGOTE_OUTPUT | 1u << ZYGOTE_QMP_SOCKET | 1u << ZYGOTE_AGENT_SOCKET | 1u << ZYGOTE_OVERLAY_DISK |           \
     1u << ZYGOTE_TAP | 1u << ZYGOTE_SAVED | 1u << ZYGOTE_SHARED | 1u << ZYGOTE_STDERR)

/* Tells the child its part of its confinement. The daemon sets the rest from outside. */
struct confine_order {
    /* User and group. */
    uint32_t uid;
    uint32_t reserved;
    /* Maximum length of each file that it writes to. */
    uint64_t file_bytes;
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
 * The confinement (confine.c), in the child, before QEMU's fork handlers and before any other thread. Returns 0, or an
 * errno with `*step` naming, in words, what failed; the caller then exits.
 *
 * It returns in another process than the one that fork() has made, which has ended: the first of a new pid namespace,
 * with the same memory, stack and descriptors. The zygote has to reap the former, whose pid is of no use to anybody.
 *
 * Over the connection of the request the child sends "born" and waits for "granted", while the daemon gives it its user and
 * control group; sends "confined" and waits for "run", while the daemon looks at it from outside.
 */
int confine_child(const struct confine_order *order, int connection, const char **step);

/* The descriptors and mappings of a child (inherited.c). On failure they write the reason, at most `bytes`, to `words`. */

/* Remembers, at the zygote's start, which file belongs to which role. */
void inherited_remember(void);

/*
 * Replaces each descriptor of the zygote's by the child's own (`fresh`, by role, -1 if none), each mapping of the shared
 * memory too, makes anew what the kernel would share (events, signals), and fails on anything that it does not know.
 * `keep` is the connection of the request.
 */
int inherited_replace(const int fresh[ZYGOTE_ROLES], int keep, char *words, int bytes);

/* Gives back guest memory that is as in the template (memory.c). */
void memory_give_back(void);

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
