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

#include <stddef.h>
#include <stdint.h>

#define ZYGOTE_VERSION 1

enum zygote_operation {
    /* Says whether this QEMU can be forked, as far as its functions show. */
    ZYGOTE_CHECK = 1,
    /* Stops the vCPUs and writes everything to the disk; "busy" while its threads still work. It never runs again. */
    ZYGOTE_STOP = 2,
    /* Makes a machine. */
    ZYGOTE_FORK = 3,
    /*
     * Makes a machine that goes on from a saved memory. ZYGOTE_STATE is a sealed memory file: the number of runs of pages
     * and a reserved number, both uint32_t, the runs (first page, pages) that differ from the template's memory, and
     * QEMU's device state. After "run" the child says "empty" and waits for "loaded", while the daemon writes those
     * pages; then it says "ready" and waits for "start", and gives no further answer: only with "start" does its guest run.
     */
    ZYGOTE_WAKE = 4,
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
 * `keep` is the connection of the request. ZYGOTE_STATE's new descriptor stays open, for wake_load.
 */
int inherited_replace(const int fresh[ZYGOTE_ROLES], int keep, char *words, int bytes);

/* Says how far it is, and returns 0 when the daemon has given the one answer that permits it to go on, else an errno. */
int ask_daemon(int connection, const char *words, const char *wanted);

/* Guest memory (memory.c). */

/* In the zygote: gives back what is as in the template, and remembers what is not. */
void memory_give_back(void);
/* Whether all own pages are remembered. */
int memory_is_known(void);
/* In the child: takes the template's content everywhere. */
int memory_become_template(void);
void memory_each_own(void (*see)(void *start, uint64_t bytes));
/* Returns where these pages of the template's memory file are mapped, or NULL. */
void *memory_find(uint32_t page, uint32_t pages);

/* A child that goes on from a saved memory (wake.c). */

/* Returns 0 if QEMU has all that is needed, else writes the reason. */
int wake_examine(char *words, int bytes);
/* In the child, before it has vCPU threads. `order` is ZYGOTE_STATE's file, which it closes. */
int wake_load(int order, int connection, char *words, int bytes);

/* QEMU as this library needs it (qemu.c). */

/* Returns 0 if all that is needed is there, else writes the reason. */
int qemu_examine(char *words, int bytes);
int qemu_is_running(void);
int qemu_stop(char *words, int bytes);
/* The number of threads that QEMU has without any that works. */
int qemu_threads_at_rest(void);
void qemu_allow_fork(void);
/* In the child: vCPU threads and monitor. */
int qemu_revive(char *words, int bytes);
void qemu_run(void);
/* Changes bytes of QEMU that are read-only. */
int qemu_overwrite(void *at, const void *bytes, size_t count, int protection);

#endif
