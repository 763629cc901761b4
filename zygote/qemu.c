/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's side: the functions of it that a fork needs, found by name, and two that it finds here instead of in the C
 * library. Everything is examined before it is used; a QEMU that differs is not forked.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "zygote.h"

/* A worker of QEMU's thread pool waits so long for work before it ends; QEMU's own ten seconds are for machines. */
#define WORKER_IDLE_MS 100
/* RUN_STATE_PAUSED, which `qemu_examine` compares with its name. */
#define STATE_PAUSED 4

static struct {
    void *(*get_cpu)(int);
    void (*init_vcpu)(void *);
    void (*enable_atfork)(void);
    void (*vm_start)(void);
    int (*vm_stop)(int);
    bool (*is_running)(void);
    void (*init_monitor)(void *, bool, void **);
    void *(*find_chardev)(const char *);
    const char *(*error_text)(void *);
    void (*drain_rcu)(void);
    unsigned char *signal_created;
    void ***contexts;
    /* QEnumLookup, whose first field is the array of names. */
    const char *const **state_names;
    unsigned *context_count;
} qemu;

static const struct {
    const char *name;
    void *at;
} needed[] = {
    { "qemu_get_cpu", &qemu.get_cpu },
    { "qemu_init_vcpu", &qemu.init_vcpu },
    { "rcu_enable_atfork", &qemu.enable_atfork },
    { "vm_start", &qemu.vm_start },
    { "vm_stop", &qemu.vm_stop },
    { "runstate_is_running", &qemu.is_running },
    { "monitor_init_qmp", &qemu.init_monitor },
    { "qemu_chr_find", &qemu.find_chardev },
    { "error_get_pretty", &qemu.error_text },
    { "drain_call_rcu", &qemu.drain_rcu },
    { "cpu_thread_signal_created", &qemu.signal_created },
    { "RunState_lookup", &qemu.state_names },
    { "tcg_ctxs", &qemu.contexts },
    { "tcg_cur_ctxs", &qemu.context_count },
};

/* Offset of a vCPU's flag that its thread runs. */
static unsigned created_at;
/*
 * The function by which a new vCPU thread gets a code generator. An emulator that is a module keeps its address here;
 * one that is a part of QEMU calls it at once.
 */
static void **register_thread_slot;
static unsigned char *register_thread_code;
static bool is_child;
static unsigned next_context;

static int say(char *words, int bytes, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(words, bytes, format, list);
    va_end(list);
    return -1;
}

/* Guest memory is marked as not to be inherited: here it is. */
int madvise(void *start, size_t length, int advice)
{
    if (advice == MADV_DONTFORK)
        return 0;
    return (int)syscall(SYS_madvise, start, length, advice);
}

/*
 * The only waits of QEMU with a deadline are those of idle workers. A fork must wait until they have ended, since the
 * child would believe that they are there.
 */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline)
{
    static int (*original)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (is_child) {
        if (!original)
            original = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
        return original(condition, mutex, deadline);
    }
    struct timespec soon;
    clock_gettime(CLOCK_MONOTONIC, &soon);
    soon.tv_nsec += WORKER_IDLE_MS * 1000000L;
    if (soon.tv_nsec >= 1000000000L) {
        soon.tv_sec++;
        soon.tv_nsec -= 1000000000L;
    }
    return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &soon);
}

/* A new thread of a child takes over the code generator of the zygote's thread, with the code that it has translated. */
static void register_thread(void)
{
    void **own = dlsym(RTLD_DEFAULT, "tcg_ctx");
    *own = (*qemu.contexts)[next_context++];
}

static int find_slot(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    if (!strstr(info->dlpi_name, "/accel-tcg-"))
        return 0;
    const ElfW(Dyn) *dynamic = NULL;
    for (int index = 0; index < info->dlpi_phnum; index++)
        if (info->dlpi_phdr[index].p_type == PT_DYNAMIC)
            dynamic = (const void *)(info->dlpi_addr + info->dlpi_phdr[index].p_vaddr);
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    const ElfW(Rela) *jumps = NULL;
    size_t jump_bytes = 0;
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (const void *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_STRTAB)
            names = (const void *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_JMPREL)
            jumps = (const void *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_PLTRELSZ)
            jump_bytes = dynamic->d_un.d_val;
    }
    for (size_t index = 0; symbols && names && jumps && index < jump_bytes / sizeof *jumps; index++) {
        const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(jumps[index].r_info)];
        if (!strcmp(names + symbol->st_name, "tcg_register_thread"))
            register_thread_slot = (void **)(info->dlpi_addr + jumps[index].r_offset);
    }
    return register_thread_slot != NULL;
}

static int count_vcpus(void)
{
    int count = 0;
    while (qemu.get_cpu(count))
        count++;
    return count;
}

/* A jump to the address behind it. */
static const unsigned char jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
#define JUMP_BYTES (sizeof jump + sizeof(void *))

static int find_register_thread(void)
{
    Dl_info found;
    const ElfW(Sym) *symbol = NULL;
    void *original = dlsym(RTLD_DEFAULT, "tcg_register_thread");
    dl_iterate_phdr(find_slot, NULL);
    if (!original || !dlsym(RTLD_DEFAULT, "tcg_ctx"))
        return -1;
    if (register_thread_slot)
        return *register_thread_slot == original ? 0 : -1;
    if (!dladdr1(original, &found, (void **)&symbol, RTLD_DL_SYMENT) || !symbol || symbol->st_size < JUMP_BYTES)
        return -1;
    register_thread_code = original;
    return 0;
}

/* The flag is set by "movb $1, OFFSET(%rdi)" at that function's start. */
static int read_offset(void)
{
    const unsigned char *code = qemu.signal_created;
    static const unsigned char branch_target[] = { 0xf3, 0x0f, 0x1e, 0xfa };
    if (!memcmp(code, branch_target, sizeof branch_target))
        code += sizeof branch_target;
    if (code[0] != 0xc6 || code[1] != 0x87 || code[6] != 1)
        return -1;
    memcpy(&created_at, code + 2, sizeof created_at);
    return created_at < 65536 ? 0 : -1;
}

int qemu_examine(char *words, int bytes)
{
    for (unsigned index = 0; index < sizeof needed / sizeof needed[0]; index++) {
        void *found = dlsym(RTLD_DEFAULT, needed[index].name);
        if (!found)
            return say(words, bytes, "this QEMU has no function %s", needed[index].name);
        memcpy(needed[index].at, &found, sizeof found);
    }
    if (strcmp((*qemu.state_names)[STATE_PAUSED], "paused"))
        return say(words, bytes, "this QEMU numbers its states in another way");
    if (read_offset() < 0)
        return say(words, bytes, "this QEMU marks a started vCPU in another way");
    if (find_register_thread() < 0)
        return say(words, bytes, "this QEMU gives code generators to threads in another way");
    unsigned vcpus = (unsigned)count_vcpus();
    if (vcpus == 0 || *qemu.context_count != vcpus)
        return say(words, bytes, "%u vCPUs have %u code generators", vcpus, *qemu.context_count);
    for (unsigned index = 0; index < vcpus; index++)
        if (((unsigned char *)qemu.get_cpu((int)index))[created_at] != 1)
            return say(words, bytes, "vCPU %u is not marked as started", index);
    if (!qemu.find_chardev("qmp"))
        return say(words, bytes, "this QEMU has no socket for a monitor");
    return 0;
}

int qemu_is_running(void)
{
    return qemu.is_running();
}

int qemu_stop(char *words, int bytes)
{
    int result = qemu.vm_stop(STATE_PAUSED);
    if (result < 0)
        return say(words, bytes, "write to the disk: %s", strerror(-result));
    qemu.drain_rcu();
    return 0;
}

/* The main thread, RCU's, and the vCPUs'. */
int qemu_threads_at_rest(void)
{
    return 2 + count_vcpus();
}

void qemu_allow_fork(void)
{
    static bool is_allowed;
    if (!is_allowed)
        qemu.enable_atfork();
    is_allowed = true;
}

/* Changes bytes of QEMU that are read-only. The kernel copies their pages for this process. */
int qemu_overwrite(void *at, const void *bytes, size_t count, int protection)
{
    unsigned long page_bytes = (unsigned long)sysconf(_SC_PAGESIZE);
    unsigned long first = (unsigned long)at & ~(page_bytes - 1);
    size_t length = (unsigned long)at + count - first;
    /* Code stays executable, since another thread may run what is beside it. */
    if (mprotect((void *)first, length, protection | PROT_WRITE) < 0)
        return -1;
    memcpy(at, bytes, count);
    return mprotect((void *)first, length, protection);
}

static int use_own_register(void)
{
    unsigned char code[JUMP_BYTES];
    void *own = (void *)register_thread;
    if (register_thread_slot)
        return qemu_overwrite(register_thread_slot, &own, sizeof own, PROT_READ);
    memcpy(code, jump, sizeof jump);
    memcpy(code + sizeof jump, &own, sizeof own);
    return qemu_overwrite(register_thread_code, code, sizeof code, PROT_READ | PROT_EXEC);
}

int qemu_revive(char *words, int bytes)
{
    is_child = true;
    if (use_own_register() < 0)
        return say(words, bytes, "prepare vCPU threads: %s", strerror(errno));
    for (int index = 0;; index++) {
        unsigned char *cpu = qemu.get_cpu(index);
        if (!cpu)
            break;
        cpu[created_at] = 0;
        qemu.init_vcpu(cpu);
    }
    void *error = NULL;
    qemu.init_monitor(qemu.find_chardev("qmp"), false, &error);
    if (error)
        return say(words, bytes, "make the monitor: %s", qemu.error_text(error));
    return 0;
}

void qemu_run(void)
{
    qemu.vm_start();
}
