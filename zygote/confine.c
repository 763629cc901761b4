/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Gives a machine that was forked from a zygote namespaces, a root, a user and a system call filter of its own.
 *
 * The zygote has no capability. Its child gets all of them in a new user namespace, where they are worth nothing
 * outside of the child's other new namespaces, and gives them up again. The daemon alone decides which user that
 * namespace stands for (docs/decisions/0032-confinement-of-forked-machines.md).
 */
#define _GNU_SOURCE
#include "zygote.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where the zygote sees the root of its children: what its own root is made of, mounted a second time. */
#define CHILD_ROOT "/child"

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)
/* A process that shares the memory of its parent, which then ends. */
#define TAKE_OVER (NAMESPACES | CLONE_VM | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)
/* As glibc's fork() calls it. */
#define FORK (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)

/* As many as the kernel takes. */
#define INSTRUCTIONS_MAX 4096
#define CAPABILITY_MAX 63
#define ANSWER_DEADLINE_MS 10000
/* As the launcher sets it for a machine that is not forked. */
#define THREADS_MAX 1024

/* QEMU's own filter, as its command line asks for it: the one of a machine that is not forked. */
static struct sock_filter *full;
static unsigned short full_length;

#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset))
#define UNLESS_SKIP(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (count))
#define PERMIT(value) UNLESS_SKIP(value, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define FLAGS_AT offsetof(struct seccomp_data, args)

/*
 * The zygote's exceptions from QEMU's filter: what a child calls before it has that filter itself. The calls other
 * than clone need capabilities, so they do nothing in the zygote.
 */
static const struct sock_filter exceptions[] = {
    LOAD(offsetof(struct seccomp_data, arch)),
    UNLESS_SKIP(AUDIT_ARCH_X86_64, 17),
    LOAD(offsetof(struct seccomp_data, nr)),
    PERMIT(SYS_mount),
    PERMIT(SYS_setsid),
    PERMIT(SYS_setresgid),
    PERMIT(SYS_setresuid),
    UNLESS_SKIP(SYS_clone, 7),
    LOAD(FLAGS_AT + 4),
    UNLESS_SKIP(0, 5),
    LOAD(FLAGS_AT),
    PERMIT(FORK),
    PERMIT(TAKE_OVER),
    /* QEMU's filter follows. */
};
#define EXCEPTIONS (sizeof exceptions / sizeof *exceptions)

static int install(struct sock_filter *program, unsigned short length)
{
    struct sock_fprog wanted = { .len = length, .filter = program };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &wanted) == 0 ? 0 : -1;
}

/* Reads the program that libseccomp has made into memory that holds the exceptions before it. */
static struct sock_filter *read_program(int file, unsigned short *length)
{
    struct stat found;
    if (fstat(file, &found) != 0 || lseek(file, 0, SEEK_SET) != 0)
        return NULL;
    size_t bytes = (size_t)found.st_size, count = bytes / sizeof(struct sock_filter);
    if (count == 0 || count > INSTRUCTIONS_MAX - EXCEPTIONS || bytes % sizeof(struct sock_filter) != 0)
        return NULL;
    struct sock_filter *program = malloc(sizeof exceptions + bytes);
    if (program == NULL)
        return NULL;
    memcpy(program, exceptions, sizeof exceptions);
    if (read(file, program + EXCEPTIONS, bytes) != (ssize_t)bytes) {
        free(program);
        return NULL;
    }
    *length = (unsigned short)count;
    return program;
}

/*
 * QEMU calls this instead of libseccomp's function, at its start. It keeps the whole filter for the children and
 * installs it with the exceptions. A failure ends QEMU, which asks for its filter to be installed.
 */
__attribute__((visibility("default"))) int seccomp_load(void *context)
{
    int (*export_program)(void *, int) = (int (*)(void *, int))dlsym(RTLD_NEXT, "seccomp_export_bpf");
    if (export_program == NULL || full != NULL)
        return -EINVAL;
    int file = memfd_create("filter", MFD_CLOEXEC);
    if (file < 0)
        return -errno;
    unsigned short length = 0;
    struct sock_filter *program = export_program(context, file) == 0 ? read_program(file, &length) : NULL;
    close(file);
    if (program == NULL)
        return -EINVAL;
    if (install(program, (unsigned short)(length + EXCEPTIONS)) != 0)
        return -errno;
    full = program + EXCEPTIONS;
    full_length = length;
    return 0;
}

/*
 * Returns 0 in a new process that goes on with this memory and stack, and an errno in this one if there is none. Else
 * this process ends, without a further access to the memory.
 */
static int take_over(void)
{
    int *tid = NULL;
    void *locks = NULL;
    size_t locks_size = 0;
    if (prctl(PR_GET_TID_ADDRESS, &tid) != 0 || tid == NULL)
        return errno == 0 ? EINVAL : errno;
    if (syscall(SYS_get_robust_list, 0, &locks, &locks_size) != 0)
        return errno;
    /* Else the kernel would write there when this process ends. */
    syscall(SYS_set_tid_address, NULL);
    register long result __asm__("rax") = SYS_clone;
    register long flags __asm__("rdi") = TAKE_OVER;
    register long stack __asm__("rsi") = 0;
    register long parent_tid __asm__("rdx") = 0;
    register int *child_tid __asm__("r10") = tid;
    register long thread_area __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jle 1f\n\t"
                     "xorl %%edi, %%edi\n\t"
                     "movl %[exit], %%eax\n\t"
                     "syscall\n"
                     "1:"
                     : "+r"(result), "+r"(flags)
                     : "r"(stack), "r"(parent_tid), "r"(child_tid), "r"(thread_area), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory", "cc");
    if (result != 0)
        return (int)-result;
    /* The kernel does not copy these to a process that shares memory. */
    if (syscall(SYS_set_robust_list, locks, locks_size) != 0)
        return errno;
    if (__rseq_size != 0) {
        char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
        if (syscall(SYS_rseq, area, 32, 0, RSEQ_SIG) != 0)
            return errno;
    }
    return 0;
}

static int enter_root(const char **step)
{
    const unsigned long closed = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    *step = "mount the root";
    if (mount(CHILD_ROOT, CHILD_ROOT, NULL, MS_BIND | MS_REC, NULL) != 0)
        return errno;
    *step = "mount proc";
    if (mount("proc", CHILD_ROOT "/proc", "proc", closed, "subset=pid") != 0)
        return errno;
    *step = "change the root";
    if (chdir(CHILD_ROOT) != 0 || syscall(SYS_pivot_root, ".", ".") != 0)
        return errno;
    *step = "leave the zygote's root";
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
        return errno;
    return 0;
}

int ask_daemon(int connection, const char *words, const char *wanted)
{
    char answer[16];
    struct pollfd waiting = { connection, POLLIN, 0 };
    size_t length = strlen(wanted);
    if (send(connection, words, strlen(words), MSG_NOSIGNAL) < 0)
        return errno;
    int ready;
    do
        ready = poll(&waiting, 1, ANSWER_DEADLINE_MS);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0)
        return ready == 0 ? ETIMEDOUT : errno;
    ssize_t bytes = recv(connection, answer, sizeof answer, MSG_DONTWAIT);
    if (bytes < 0)
        return errno;
    return (size_t)bytes == length && memcmp(answer, wanted, length) == 0 ? 0 : EPERM;
}

/* Lower than the zygote's, which are for all its children together. */
static int limit(uint64_t file_bytes, const char **step)
{
    struct rlimit files = { 0 }, threads = { THREADS_MAX, THREADS_MAX };
    *step = "limit it";
    if (getrlimit(RLIMIT_FSIZE, &files) != 0)
        return errno;
    if (files.rlim_max > file_bytes)
        files.rlim_max = file_bytes;
    files.rlim_cur = files.rlim_max;
    return setrlimit(RLIMIT_FSIZE, &files) == 0 && setrlimit(RLIMIT_NPROC, &threads) == 0 ? 0 : errno;
}

static int drop_rights(uid_t uid, const char **step)
{
    *step = "drop a capability";
    for (int capability = 0; capability <= CAPABILITY_MAX; capability++)
        if (prctl(PR_CAPBSET_DROP, capability) != 0 && (errno != EINVAL || capability == 0))
            return errno;
    *step = "set its user";
    /* Not glibc's functions, which would tell other threads. */
    if (syscall(SYS_setgroups, 0, NULL) != 0)
        return errno;
    if (syscall(SYS_setresgid, uid, uid, uid) != 0)
        return errno;
    if (syscall(SYS_setresuid, uid, uid, uid) != 0)
        return errno;
    *step = "drop its capabilities";
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
        return errno;
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { { 0 } };
    if (syscall(SYS_capset, &header, none) != 0)
        return errno;
    *step = "be closed to the zygote";
    /* The zygote owns the user namespace, so otherwise it could trace the child. */
    if (prctl(PR_SET_DUMPABLE, 0) != 0)
        return errno;
    *step = "filter its system calls";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || install(full, full_length) != 0)
        return errno;
    return 0;
}

int confine_child(const struct confine_order *order, int connection, const char **step)
{
    *step = "confine it";
    if (order->uid == 0 || order->uid == UINT32_MAX)
        return EINVAL;
    *step = "find QEMU's system call filter";
    if (full == NULL)
        return ENOENT;
    *step = "make namespaces";
    int error = take_over();
    if (error != 0)
        return error;
    *step = "leave the session";
    if (setsid() < 0)
        return errno;
    if ((error = enter_root(step)) != 0)
        return error;
    if ((error = limit(order->file_bytes, step)) != 0)
        return error;
    *step = "get its user from the daemon";
    if ((error = ask_daemon(connection, "born", "granted")) != 0)
        return error;
    if ((error = drop_rights(order->uid, step)) != 0)
        return error;
    *step = "be found confined by the daemon";
    return ask_daemon(connection, "confined", "run");
}
