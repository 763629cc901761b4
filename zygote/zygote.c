/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The library's start in QEMU, its requests, and the fork. All of it runs in QEMU's main loop, under QEMU's own lock: this
 * library has no thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "zygote.h"

#define WORDS_BYTES 512
/* The daemon sends its request as soon as it has connected. */
#define REQUEST_DEADLINE_MS 2000
/* G_IO_IN of GLib. */
#define READABLE 1

static unsigned control_source;
/* Its functions are there: the reason why not, or an empty text. */
static char obstacle[WORDS_BYTES];
static int is_stopped;

/* The fork under way, for the handlers that run inside it. */
static struct {
    const struct zygote_request *request;
    const int *descriptors;
    int connection;
    int is_child;
} current;

static void answer(int connection, const char *format, ...)
{
    char text[WORDS_BYTES + 64];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (length >= (int)sizeof text)
        length = sizeof text - 1;
    send(connection, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int count_threads(void)
{
    DIR *directory = opendir("/proc/self/task");
    int count = 0;
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void give_up(const char *format, ...)
{
    char words[WORDS_BYTES];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    answer(current.connection, "failed %s", words);
    _exit(1);
}

/* Runs in every new process before any other thread, also QEMU's own, exists. */
static void become_child(void)
{
    char words[WORDS_BYTES];
    const char *step = "confine the machine";
    if (!current.request)
        return;
    current.is_child = 1;
    close(ZYGOTE_CONTROL);
    if (inherited_replace(current.descriptors, current.connection, words, sizeof words) < 0)
        give_up("%s", words);
    int error = confine_child(&current.request->confine, current.connection, &step);
    if (error)
        give_up("%s: %s", step, strerror(error));
}

static void stop(int connection)
{
    char words[WORDS_BYTES];
    if (!is_stopped && qemu_stop(words, sizeof words) < 0)
        return answer(connection, "failed %s", words);
    if (!is_stopped)
        memory_give_back();
    is_stopped = 1;
    int threads = count_threads();
    if (threads > qemu_threads_at_rest())
        return answer(connection, "busy it has %d threads and not %d", threads, qemu_threads_at_rest());
    answer(connection, "ok");
}

/* In the child, whose threads and monitor do not exist yet. */
static void begin(int connection, const struct zygote_request *request, int order)
{
    char words[WORDS_BYTES];
    int is_wake = request->operation == ZYGOTE_WAKE;
    if (is_wake && wake_load(order, connection, words, sizeof words) < 0)
        give_up("%s", words);
    if (qemu_revive(words, sizeof words) < 0)
        give_up("%s", words);
    int error = is_wake ? ask_daemon(connection, "ready", "start") : 0;
    if (error)
        give_up("be started by the daemon: %s", strerror(error));
    qemu_run();
    if (!is_wake)
        answer(connection, "ok");
}

/* Returns in the zygote and in the child, both in QEMU's main loop. */
static void fork_machine(int connection, const struct zygote_request *request, const int descriptors[ZYGOTE_ROLES])
{
    char words[WORDS_BYTES];
    if (!is_stopped || qemu_is_running())
        return answer(connection, "failed the zygote is not stopped");
    if (count_threads() != qemu_threads_at_rest())
        return answer(connection, "failed it has %d threads and not %d", count_threads(), qemu_threads_at_rest());
    if (request->operation == ZYGOTE_WAKE && wake_examine(words, sizeof words) < 0)
        return answer(connection, "failed %s", words);
    qemu_allow_fork();
    current.request = request;
    current.descriptors = descriptors;
    current.connection = connection;
    pid_t pid = fork();
    int fork_error = errno;
    if (pid == 0) {
        unsigned (*remove_source)(unsigned) = dlsym(RTLD_DEFAULT, "g_source_remove");
        remove_source(control_source);
        begin(connection, request, descriptors[ZYGOTE_STATE]);
        current.request = NULL;
        return;
    }
    current.request = NULL;
    if (pid < 0)
        answer(connection, "failed fork: %s", strerror(fork_error));
}

static void obey(int connection, const struct zygote_request *request, const int descriptors[ZYGOTE_ROLES])
{
    char words[WORDS_BYTES];
    if (request->version != ZYGOTE_VERSION)
        return answer(connection, "failed the zygote speaks version %d of the protocol", ZYGOTE_VERSION);
    if (!obstacle[0] && qemu_examine(words, sizeof words) < 0)
        return answer(connection, "failed %s", words);
    if (obstacle[0])
        return answer(connection, "failed %s", obstacle);
    switch (request->operation) {
    case ZYGOTE_CHECK:
        return answer(connection, "ok");
    case ZYGOTE_STOP:
        return stop(connection);
    case ZYGOTE_FORK:
    case ZYGOTE_WAKE:
        return fork_machine(connection, request, descriptors);
    default:
        return answer(connection, "failed the zygote knows no operation %u", request->operation);
    }
}

/* Returns 0 for a whole message with as many descriptors as it names. The descriptors received are the caller's. */
static int receive(int connection, struct zygote_request *request, int descriptors[ZYGOTE_ROLES])
{
    char control[CMSG_SPACE(sizeof(int) * ZYGOTE_ROLES)];
    struct iovec piece = { request, sizeof *request };
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    struct pollfd wanted = { connection, POLLIN, 0 };
    int received[ZYGOTE_ROLES], count = 0, used = 0;
    for (int role = 0; role < ZYGOTE_ROLES; role++)
        descriptors[role] = -1;
    if (poll(&wanted, 1, REQUEST_DEADLINE_MS) != 1)
        return -1;
    ssize_t bytes = recvmsg(connection, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes < 0)
        return -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        count = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(received, CMSG_DATA(part), sizeof(int) * (size_t)count);
    }
    int is_whole = bytes == sizeof *request && !(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC));
    for (int role = 0; role < ZYGOTE_ROLES && used < count; role++)
        if (request->roles >> role & 1)
            descriptors[role] = received[used++];
    for (int index = used; index < count; index++)
        close(received[index]);
    return is_whole && used == count && used == __builtin_popcount(request->roles) ? 0 : -1;
}

static int on_control(int control, unsigned condition, void *unused)
{
    (void)condition, (void)unused;
    struct zygote_request request = { 0 };
    int descriptors[ZYGOTE_ROLES];
    int connection = accept4(control, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return 1;
    if (receive(connection, &request, descriptors) < 0)
        answer(connection, "failed the request is not whole");
    else
        obey(connection, &request, descriptors);
    close(connection);
    /* A child has put its descriptors in their places. */
    if (current.is_child)
        return 0;
    for (int role = 0; role < ZYGOTE_ROLES; role++)
        if (descriptors[role] >= 0)
            close(descriptors[role]);
    return 1;
}

/* QEMU calls this in each round of its main loop: in the first one the control socket becomes one of its sources. */
int g_main_context_acquire(void *context)
{
    static int (*original)(void *);
    unsigned (*add)(int, unsigned, int (*)(int, unsigned, void *), void *);
    if (!original) {
        original = dlsym(RTLD_NEXT, "g_main_context_acquire");
        add = dlsym(RTLD_DEFAULT, "g_unix_fd_add");
        if (add)
            control_source = add(ZYGOTE_CONTROL, READABLE, on_control, NULL);
    }
    return original(context);
}

__attribute__((constructor)) static void start(void)
{
    inherited_remember();
    close(ZYGOTE_LIBRARY);
    /* Its children are nobody's to wait for. */
    signal(SIGCHLD, SIG_IGN);
    /* The first of the handlers, so that it is the first to run in a child. */
    pthread_atfork(NULL, NULL, become_child);
}
