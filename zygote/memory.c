/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest memory that the zygote has written and that is again what the template has: given back, so that neither the
 * zygote nor a child nor a child's snapshot holds a page of it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "zygote.h"

#define PAGE_BYTES 4096
#define ENTRIES 512
#define PRESENT (1ull << 63)
#define OF_FILE (1ull << 61)

/* Compares the own pages among these with the file. */
static void give_back(unsigned char *start, off_t offset, const uint64_t *entries, int count)
{
    unsigned char original[PAGE_BYTES];
    for (int index = 0; index < count; index++) {
        unsigned char *page = start + (size_t)index * PAGE_BYTES;
        if (!(entries[index] & PRESENT) || entries[index] & OF_FILE)
            continue;
        if (pread(ZYGOTE_MEMORY, original, PAGE_BYTES, offset + (off_t)index * PAGE_BYTES) == PAGE_BYTES &&
            !memcmp(page, original, PAGE_BYTES))
            madvise(page, PAGE_BYTES, MADV_DONTNEED);
    }
}

static void look_through(int pagemap, unsigned long start, unsigned long end, unsigned long offset)
{
    uint64_t entries[ENTRIES];
    for (unsigned long at = start; at < end; at += (unsigned long)ENTRIES * PAGE_BYTES) {
        unsigned long pages = (end - at) / PAGE_BYTES;
        int count = (int)(pages < ENTRIES ? pages : ENTRIES);
        size_t bytes = (size_t)count * sizeof entries[0];
        if (pread(pagemap, entries, bytes, (off_t)(at / PAGE_BYTES * sizeof entries[0])) != (ssize_t)bytes)
            return;
        give_back((unsigned char *)at, (off_t)(offset + (at - start)), entries, count);
    }
}

void memory_give_back(void)
{
    struct stat memory;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], rights[8];
    unsigned long start, end, offset, inode;
    unsigned major_number, minor_number;
    while (pagemap >= 0 && maps && fstat(ZYGOTE_MEMORY, &memory) == 0 && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &start, &end, rights, &offset, &major_number, &minor_number,
                   &inode) != 7)
            continue;
        if (rights[3] == 'p' && inode == memory.st_ino && makedev(major_number, minor_number) == memory.st_dev)
            look_through(pagemap, start, end, offset);
    }
    if (maps)
        fclose(maps);
    if (pagemap >= 0)
        close(pagemap);
}
