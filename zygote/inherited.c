/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Descriptors and mappings that a child inherits of its zygote and must not share: each is replaced by the child's
 * own, made anew, or known to be a read-only file that all machines of the template hold. Anything else is an error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "zygote.h"

#define DESCRIPTORS_MAX 1024
#define MAPPINGS_MAX 256

/* Which file a descriptor is of. The ends of a pipe differ only in how they are open. */
struct identity {
    int is_known;
    dev_t device;
    ino_t inode;
    mode_t kind;
    int access;
};

static struct identity roles[ZYGOTE_ROLES];

/* Settings of QEMU for its TAP device, for those of its children. */
static const unsigned long tap_settings[] = { TUNSETVNETHDRSZ, TUNSETVNETLE, TUNSETVNETBE, TUNSETOFFLOAD, TUNSETSNDBUF };
#define TAP_SETTINGS (sizeof tap_settings / sizeof tap_settings[0])
static struct {
    int is_set;
    unsigned long value;
} tap_values[TAP_SETTINGS];

static int is_null(const struct stat *found)
{
    return S_ISCHR(found->st_mode) && found->st_rdev == makedev(1, 3);
}

static int identify(int fd, struct identity *identity)
{
    struct stat found;
    if (fstat(fd, &found) < 0 || is_null(&found))
        return -1;
    identity->is_known = 1;
    identity->device = found.st_dev;
    identity->inode = found.st_ino;
    identity->kind = found.st_mode & S_IFMT;
    identity->access = S_ISFIFO(found.st_mode) ? fcntl(fd, F_GETFL) & O_ACCMODE : 0;
    return 0;
}

static int is_same(const struct identity *one, const struct identity *other)
{
    return one->is_known && other->is_known && one->device == other->device && one->inode == other->inode &&
           one->kind == other->kind && one->access == other->access;
}

void inherited_remember(void)
{
    for (int role = 0; role < ZYGOTE_ROLES; role++)
        identify(role, &roles[role]);
}

/* QEMU's own calls come by here, since this library is found before the C library. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    unsigned long argument = va_arg(list, unsigned long);
    va_end(list);
    long result = syscall(SYS_ioctl, fd, request, argument);
    for (unsigned index = 0; result >= 0 && index < TAP_SETTINGS; index++) {
        if (request != tap_settings[index])
            continue;
        tap_values[index].is_set = 1;
        tap_values[index].value = request == TUNSETOFFLOAD ? argument : (unsigned long)*(int *)argument;
    }
    return (int)result;
}

static int set_up_tap(int fd)
{
    for (unsigned index = 0; index < TAP_SETTINGS; index++) {
        if (!tap_values[index].is_set)
            continue;
        int value = (int)tap_values[index].value;
        unsigned long argument =
            tap_settings[index] == TUNSETOFFLOAD ? tap_values[index].value : (unsigned long)&value;
        if (syscall(SYS_ioctl, fd, tap_settings[index], argument) < 0)
            return -1;
    }
    return 0;
}

static int say(char *words, int bytes, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(words, bytes, format, list);
    va_end(list);
    return -1;
}

/*
 * Takes the number over for another open file, and closes that one's own number. The file gets the status of the one that
 * it replaces: QEMU has set it, and would wait in a read for ever where it expects not to.
 */
static int put(int fresh, int number)
{
    int flags = fcntl(number, F_GETFD), status = fcntl(number, F_GETFL);
    if (fresh < 0 || flags < 0 || status < 0 || fcntl(fresh, F_SETFL, status) < 0 ||
        dup3(fresh, number, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
        return -1;
    return close(fresh);
}

/* A field of /proc/self/fdinfo, or `otherwise` if there is none. */
static unsigned long long field_of(int fd, const char *name, int base, unsigned long long otherwise)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(path, "re");
    if (!file)
        return otherwise;
    size_t length = strlen(name);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, length))
            otherwise = strtoull(line + length, NULL, base);
    fclose(file);
    return otherwise;
}

static int renew_eventfd(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    unsigned count = (unsigned)field_of(fd, "eventfd-count:", 16, 0);
    return put(eventfd(count, EFD_CLOEXEC | (flags & O_NONBLOCK ? EFD_NONBLOCK : 0)), fd);
}

static int renew_signalfd(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    unsigned long long bits = field_of(fd, "sigmask:", 16, 0);
    sigset_t mask;
    sigemptyset(&mask);
    for (int number = 1; number <= 64; number++)
        if (bits >> (number - 1) & 1)
            sigaddset(&mask, number);
    return put(signalfd(-1, &mask, SFD_CLOEXEC | (flags & O_NONBLOCK ? SFD_NONBLOCK : 0)), fd);
}

/* An epoll that watches something would have to watch the same again. */
static int renew_epoll(int fd)
{
    if (field_of(fd, "tfd:", 10, UINT32_MAX) != UINT32_MAX)
        return -1;
    return put(epoll_create1(EPOLL_CLOEXEC), fd);
}

static int is_harmless_device(const struct stat *found)
{
    if (!S_ISCHR(found->st_mode) || major(found->st_rdev) != 1)
        return 0;
    /* null, zero, random, urandom */
    unsigned number = minor(found->st_rdev);
    return number == 3 || number == 5 || number == 8 || number == 9;
}

/* A memory file is open for writing even if it is sealed. */
static int is_writable(int fd)
{
    int flags = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS);
    return flags < 0 || ((flags & O_ACCMODE) != O_RDONLY && (seals < 0 || !(seals & F_SEAL_WRITE)));
}

static int replace_role(int fd, int role, const int fresh[ZYGOTE_ROLES], char *words, int bytes)
{
    if (fresh[role] < 0) {
        if (ZYGOTE_OWN_ROLES >> role & 1)
            return say(words, bytes, "descriptor %d: the child was given none of its own for role %d", fd, role);
        if (is_writable(fd))
            return say(words, bytes, "descriptor %d, role %d, is the zygote's and can be written to", fd, role);
        return 0;
    }
    int copy = fcntl(fresh[role], F_DUPFD_CLOEXEC, DESCRIPTORS_MAX / 2);
    if (role == ZYGOTE_TAP && copy >= 0 && set_up_tap(copy) < 0)
        return say(words, bytes, "set up the network device: %s", strerror(errno));
    if (put(copy, fd) < 0)
        return say(words, bytes, "replace descriptor %d: %s", fd, strerror(errno));
    return 0;
}

static int replace_other(int fd, const struct stat *found, char *words, int bytes)
{
    char path[64], target[128];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    int result = -1;
    if (is_harmless_device(found))
        return 0;
    if (!strcmp(target, "anon_inode:[eventfd]"))
        result = renew_eventfd(fd);
    else if (!strcmp(target, "anon_inode:[signalfd]"))
        result = renew_signalfd(fd);
    else if (!strcmp(target, "anon_inode:[eventpoll]"))
        result = renew_epoll(fd);
    else
        return say(words, bytes, "descriptor %d is unknown: %s", fd, target);
    return result == 0 ? 0 : say(words, bytes, "make descriptor %d anew: %s", fd, target);
}

static int list_descriptors(int numbers[DESCRIPTORS_MAX])
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return -1;
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory))
            continue;
        if (count == DESCRIPTORS_MAX) {
            count = -1;
            break;
        }
        numbers[count++] = fd;
    }
    closedir(directory);
    return count;
}

static int replace_descriptors(const int fresh[ZYGOTE_ROLES], int keep, char *words, int bytes)
{
    int numbers[DESCRIPTORS_MAX];
    int count = list_descriptors(numbers);
    if (count < 0)
        return say(words, bytes, "the descriptors cannot be listed: %s", strerror(errno));
    for (int index = 0; index < count; index++) {
        int fd = numbers[index], role, is_fresh = fd == keep;
        struct stat found;
        struct identity identity = { 0 };
        for (role = 0; role < ZYGOTE_ROLES; role++)
            is_fresh |= fresh[role] == fd;
        if (is_fresh)
            continue;
        if (fstat(fd, &found) < 0)
            return say(words, bytes, "descriptor %d: %s", fd, strerror(errno));
        identify(fd, &identity);
        for (role = 0; role < ZYGOTE_ROLES && !is_same(&roles[role], &identity); role++)
            continue;
        int result = role < ZYGOTE_ROLES ? replace_role(fd, role, fresh, words, bytes)
                                         : replace_other(fd, &found, words, bytes);
        if (result < 0)
            return -1;
    }
    return 0;
}

struct mapping {
    unsigned long start, end, offset;
    int is_shared_memory;
    char line[160];
};

/* Lists the mappings that are shared. */
static int list_shared(struct mapping mappings[MAPPINGS_MAX])
{
    FILE *file = fopen("/proc/self/maps", "re");
    char line[512];
    int count = 0;
    if (!file)
        return -1;
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end, offset, inode;
        unsigned major_number, minor_number;
        char rights[8];
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &start, &end, rights, &offset, &major_number, &minor_number,
                   &inode) != 7 || rights[3] != 's')
            continue;
        if (count == MAPPINGS_MAX) {
            count = -1;
            break;
        }
        const struct identity *shared = &roles[ZYGOTE_SHARED];
        struct mapping *mapping = &mappings[count++];
        *mapping = (struct mapping){ start, end, offset, 0, "" };
        mapping->is_shared_memory = shared->is_known && shared->inode == inode &&
                                    shared->device == makedev(major_number, minor_number);
        line[strcspn(line, "\n")] = 0;
        snprintf(mapping->line, sizeof mapping->line, "%.150s", line);
    }
    fclose(file);
    return count;
}

static int replace_mappings(int shared, char *words, int bytes)
{
    static struct mapping mappings[MAPPINGS_MAX];
    int count = list_shared(mappings);
    if (count < 0)
        return say(words, bytes, "the mappings cannot be listed");
    for (int index = 0; index < count; index++) {
        struct mapping *mapping = &mappings[index];
        if (!mapping->is_shared_memory)
            return say(words, bytes, "a shared mapping is unknown: %s", mapping->line);
        void *at = (void *)mapping->start;
        if (mmap(at, mapping->end - mapping->start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, shared,
                 (off_t)mapping->offset) != at)
            return say(words, bytes, "map the shared memory: %s", strerror(errno));
    }
    return 0;
}

int inherited_replace(const int fresh[ZYGOTE_ROLES], int keep, char *words, int bytes)
{
    /* The mappings first: what they belong to is known by the zygote's file. */
    if (replace_mappings(fresh[ZYGOTE_SHARED], words, bytes) < 0)
        return -1;
    if (replace_descriptors(fresh, keep, words, bytes) < 0)
        return -1;
    for (int role = 0; role < ZYGOTE_ROLES; role++)
        if (fresh[role] >= 0 && role != ZYGOTE_STATE)
            close(fresh[role]);
    return 0;
}
