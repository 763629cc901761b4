/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Loads a sandbox's saved memory and device state into a child, over what the zygote's guest was. The translated code
 * that the child has inherited stays, except for that of pages on which the sandbox differs from the zygote.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zygote.h"

static struct {
    void (*reset)(int);
    int (*load)(void *);
    void *(*channel_of)(int);
    void *(*file_of)(void *);
    int (*close_file)(void *);
    void *(*region_of)(void *, uint64_t *);
    void (*hold_region)(void *);
    void (*unmap)(void *, uint64_t, bool, uint64_t);
    int (*inactivate_disks)(void);
    void (*activate_disks)(void **);
    int (*wait_connected)(void *, void **);
    void *(*find_chardev)(const char *);
    const char *(*error_text)(void *);
    unsigned char *is_self;
    unsigned char *drop_all;
} qemu;

static const struct {
    const char *name;
    void *at;
} needed[] = {
    { "qemu_system_reset", &qemu.reset },
    { "qemu_loadvm_state", &qemu.load },
    { "qio_channel_file_new_fd", &qemu.channel_of },
    { "qemu_file_new_input", &qemu.file_of },
    { "qemu_fclose", &qemu.close_file },
    { "memory_region_from_host", &qemu.region_of },
    { "memory_region_ref", &qemu.hold_region },
    { "cpu_physical_memory_unmap", &qemu.unmap },
    { "bdrv_inactivate_all", &qemu.inactivate_disks },
    { "bdrv_activate_all", &qemu.activate_disks },
    { "qemu_chr_wait_connected", &qemu.wait_connected },
    { "qemu_chr_find", &qemu.find_chardev },
    { "error_get_pretty", &qemu.error_text },
    { "qemu_cpu_is_self", &qemu.is_self },
    { "tb_flush", &qemu.drop_all },
};

/* "mov $1, %eax; ret" and "ret": functions that return true, and nothing. */
static const unsigned char return_true[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
static const unsigned char return_nothing[] = { 0xc3 };

/* The beginning of ZYGOTE_STATE's file. */
struct order {
    uint32_t count;
    uint32_t reserved;
    struct {
        uint32_t page, pages;
    } runs[];
};

static int say(char *words, int bytes, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(words, bytes, format, list);
    va_end(list);
    return -1;
}

int wake_examine(char *words, int bytes)
{
    for (unsigned index = 0; index < sizeof needed / sizeof needed[0]; index++) {
        void *found = dlsym(RTLD_DEFAULT, needed[index].name);
        if (!found)
            return say(words, bytes, "this QEMU has no function %s", needed[index].name);
        memcpy(needed[index].at, &found, sizeof found);
    }
    if (!qemu.find_chardev("agent"))
        return say(words, bytes, "this QEMU has no socket for the agent");
    return memory_is_known() ? 0 : say(words, bytes, "the zygote does not know which pages it has written");
}

/*
 * As after a write by a device: QEMU drops the code that it has translated from these bytes. Its function takes a
 * reference to the region that its counterpart has taken.
 */
static void drop_code(void *start, uint64_t count)
{
    uint64_t offset;
    qemu.hold_region(qemu.region_of(start, &offset));
    qemu.unmap(start, count, true, count);
}

static int drop_code_of(const struct order *order)
{
    memory_each_own(drop_code);
    for (uint32_t index = 0; index < order->count; index++) {
        void *start = memory_find(order->runs[index].page, order->runs[index].pages);
        if (!start)
            return -1;
        drop_code(start, (uint64_t)order->runs[index].pages * 4096);
    }
    return 0;
}

/* QEMU reads the tables of the disk anew: the sandbox's is another than the zygote's. */
static int take_disks(char *words, int bytes)
{
    void *error = NULL;
    int result = qemu.inactivate_disks();
    if (result < 0)
        return say(words, bytes, "leave the zygote's disk: %s", strerror(-result));
    qemu.activate_disks(&error);
    return error ? say(words, bytes, "open the disk: %s", qemu.error_text(error)) : 0;
}

static int load_state(int order, off_t position, char *words, int bytes)
{
    if (lseek(order, position, SEEK_SET) != position)
        return say(words, bytes, "read the device state: %s", strerror(errno));
    void *file = qemu.file_of(qemu.channel_of(order));
    int result = qemu.load(file);
    qemu.close_file(file);
    return result < 0 ? say(words, bytes, "load the device state: %s", strerror(-result)) : 0;
}

static int load(int file, const struct order *order, off_t state_at, int connection, char *words, int bytes)
{
    void *connect_error = NULL;
    /* Before there is a state: the guest must not see its channel close and open again. */
    if (qemu.wait_connected(qemu.find_chardev("agent"), &connect_error) < 0)
        return say(words, bytes, "connect the agent: %s", qemu.error_text(connect_error));
    if (take_disks(words, bytes) < 0)
        return -1;
    qemu.reset(0);
    /* The reset has written to memory, too. */
    if (memory_become_template() < 0)
        return say(words, bytes, "take the template's memory: %s", strerror(errno));
    int error = ask_daemon(connection, "empty", "loaded");
    if (error)
        return say(words, bytes, "get its pages from the daemon: %s", strerror(error));
    if (drop_code_of(order) < 0)
        return say(words, bytes, "the saved memory has pages that the machine has not");
    return load_state(file, state_at, words, bytes);
}

/*
 * Reset and load have work done "on the vCPU" and would wait for ever for its thread: meanwhile every thread is it. The
 * load drops all translated code, since QEMU does not know which pages differ: meanwhile it drops none.
 */
static int load_without_vcpu(int file, const struct order *order, off_t state_at, int connection, char *words, int bytes)
{
    const int code = PROT_READ | PROT_EXEC;
    unsigned char is_self[sizeof return_true], drop_all[sizeof return_nothing];
    memcpy(is_self, qemu.is_self, sizeof is_self);
    memcpy(drop_all, qemu.drop_all, sizeof drop_all);
    if (qemu_overwrite(qemu.is_self, return_true, sizeof return_true, code) < 0 ||
        qemu_overwrite(qemu.drop_all, return_nothing, sizeof return_nothing, code) < 0)
        return say(words, bytes, "prepare the load: %s", strerror(errno));
    if (load(file, order, state_at, connection, words, bytes) < 0)
        return -1;
    if (qemu_overwrite(qemu.is_self, is_self, sizeof is_self, code) < 0 ||
        qemu_overwrite(qemu.drop_all, drop_all, sizeof drop_all, code) < 0)
        return say(words, bytes, "end the load: %s", strerror(errno));
    return 0;
}

int wake_load(int file, int connection, char *words, int bytes)
{
    struct stat found;
    if (file < 0 || fstat(file, &found) < 0 || (size_t)found.st_size < sizeof(struct order))
        return say(words, bytes, "there is no state to load");
    size_t length = (size_t)found.st_size;
    struct order *order = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
    if (order == MAP_FAILED)
        return say(words, bytes, "read which pages differ: %s", strerror(errno));
    size_t state_at = sizeof *order + (size_t)order->count * sizeof order->runs[0];
    int result = state_at < length
                     ? load_without_vcpu(file, order, (off_t)state_at, connection, words, bytes)
                     : say(words, bytes, "there is no whole list of pages to load");
    munmap(order, length);
    return result;
}
