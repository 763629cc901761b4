/*
 * A program in the place of a zygote's QEMU: forks, and has the real confinement applied to the child (zygote/confine.c).
 * Descriptor 3 is a listening socket for packets. A connection's first message is an order, its answers are text:
 *
 *   fork UID          makes a child, which then serves the connection
 *   plain             makes the whole filter its own, as QEMU that is not forked, and serves the connection
 *   attack PID        says which rights it has over that process
 *
 * A child, and a plain one, then takes any number of "attack PID", and of "try FIRST LAST", system calls by number.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "zygote.h"

/* Functions of libseccomp, whose header is not installed with it. */
void *seccomp_init(unsigned);
int seccomp_load(void *);
int seccomp_rule_add_array(void *, unsigned, int, unsigned, void *);

#define ALLOW 0x7fff0000u
#define KILL 0x80000000u

/* A secret that a child has, at the same address in all of them. */
static char secret[] = "template";

static void *make_filter(void)
{
    /* fork vfork execve setuid setgid setpgid setsid setreuid setregid setresuid setresgid mount unshare setns execveat */
    static const int forbidden[] = { 57, 58, 59, 105, 106, 109, 112, 113, 114, 117, 119, 165, 272, 308, 322 };
    void *filter = seccomp_init(ALLOW);
    for (size_t index = 0; index < sizeof forbidden / sizeof *forbidden; index++)
        seccomp_rule_add_array(filter, KILL, forbidden[index], 0, NULL);
    return filter;
}

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Writes a word for each right that the caller has over the process. */
static void attack(pid_t pid, char *words, size_t bytes)
{
    char path[64], taken[sizeof secret];
    struct iovec here = { taken, sizeof taken }, there = { secret, sizeof taken };
    struct rlimit limit;
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int memory = open(path, O_RDONLY);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    snprintf(words, bytes, "rights:%s%s%s%s%s%s%s", memory >= 0 && pread(memory, taken, sizeof taken, (off_t)secret) > 0 ? " mem" : "",
             process_vm_readv(pid, &here, 1, &there, 1, 0) > 0 ? " vm" : "",
             ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 ? " trace" : "",
             syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0 ? " descriptors" : "",
             prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0 ? " limits" : "", kill(pid, 0) == 0 ? " signal" : "",
             setpriority(PRIO_PROCESS, (id_t)pid, 19) == 0 ? " priority" : "");
    if (memory >= 0)
        close(memory);
    if (pidfd >= 0)
        close(pidfd);
}

static void say(int connection, const char *words)
{
    send(connection, words, strlen(words), MSG_NOSIGNAL);
}

/* These wait, or end the process whatever the filter says. */
static int is_untried(long number)
{
    return number == SYS_rt_sigreturn || number == SYS_pause || number == SYS_exit || number == SYS_exit_group;
}

static void try_calls(int connection, long first, long last)
{
    char words[64];
    for (long number = first; number <= last; number++) {
        errno = 0;
        long result = is_untried(number) ? 0 : syscall(number, -1, -1, -1, -1, -1, -1);
        snprintf(words, sizeof words, "%ld %s", number, result == -1 ? strerrorname_np(errno) : "done");
        say(connection, words);
    }
}

static void serve(int connection)
{
    char order[64], words[128];
    for (;;) {
        long first, last;
        int pid;
        ssize_t length = recv(connection, order, sizeof order - 1, 0);
        if (length <= 0)
            _exit(0);
        order[length] = 0;
        if (sscanf(order, "attack %d", &pid) == 1) {
            attack(pid, words, sizeof words);
            say(connection, words);
        } else if (sscanf(order, "try %ld %ld", &first, &last) == 2)
            try_calls(connection, first, last);
    }
}

static void make_child(int connection, uid_t uid)
{
    struct confine_order order = { .uid = uid, .file_bytes = 1000000 };
    const char *step = "";
    char words[200];
    pthread_t thread;
    close(3);
    int error = confine_child(&order, connection, &step);
    if (error != 0) {
        snprintf(words, sizeof words, "failed %s: %s", step, strerrorname_np(error));
        say(connection, words);
        _exit(1);
    }
    /* The C library must still be able to make threads and to say which one this is. */
    pthread_mutexattr_t kind;
    pthread_mutex_t lock;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&lock, &kind);
    int locked = pthread_mutex_lock(&lock) == 0 && pthread_mutex_lock(&lock) == EDEADLK;
    int made = pthread_create(&thread, NULL, wait_for_ever, NULL) == 0;
    strcpy(secret, "child");
    snprintf(words, sizeof words, "ok %s %s", locked ? "locks" : "no lock", made ? "threads" : "no thread");
    say(connection, words);
    serve(connection);
}

int main(void)
{
    pthread_t thread;
    int (*load_whole)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "seccomp_load");
    void *filter = make_filter();
    int is_loaded = 0;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        char order[64];
        unsigned number;
        int connection = accept4(3, NULL, NULL, SOCK_CLOEXEC);
        ssize_t length = connection < 0 ? -1 : recv(connection, order, sizeof order - 1, 0);
        if (length <= 0)
            return 1;
        order[length] = 0;
        if (strcmp(order, "plain") == 0) {
            load_whole(filter);
            say(connection, "ok");
            serve(connection);
        }
        if (!is_loaded && seccomp_load(filter) != 0)
            return 2;
        is_loaded = 1;
        if (sscanf(order, "attack %u", &number) == 1) {
            char words[128];
            attack((pid_t)number, words, sizeof words);
            say(connection, words);
        } else if (sscanf(order, "fork %u", &number) == 1 && fork() == 0)
            make_child(connection, number);
        close(connection);
    }
}
