/*
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest memory that the zygote has written. What is again as in the template is given back, so that neither the zygote nor
 * a child nor a child's snapshot holds a page of it. The zygote remembers the other pages for a child that wakes a
 * sandbox: a confined process cannot read its page map.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "zygote.h"

#define PAGE_BYTES 4096
#define ENTRIES 512
#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define OF_FILE (1ull << 61)
#define RANGES_MAX 8

/* A mapping of the template's memory file; numbers are of pages. `own` has a byte for each, 1 for the zygote's own. */
static struct range {
    unsigned char *start;
    uint64_t first, pages;
    unsigned char *own;
} ranges[RANGES_MAX];
static int range_count;
static int is_complete;

static int is_as_template(const unsigned char *page, off_t offset)
{
    unsigned char original[PAGE_BYTES];
    return pread(ZYGOTE_MEMORY, original, PAGE_BYTES, offset) == PAGE_BYTES && !memcmp(page, original, PAGE_BYTES);
}

static int look_through(int pagemap, struct range *range)
{
    uint64_t entries[ENTRIES];
    for (uint64_t at = 0; at < range->pages; at += ENTRIES) {
        uint64_t count = range->pages - at < ENTRIES ? range->pages - at : ENTRIES;
        size_t bytes = count * sizeof entries[0];
        off_t position = (off_t)(((uintptr_t)range->start / PAGE_BYTES + at) * sizeof entries[0]);
        if (pread(pagemap, entries, bytes, position) != (ssize_t)bytes)
            return -1;
        for (uint64_t index = 0; index < count; index++) {
            unsigned char *page = range->start + (at + index) * PAGE_BYTES;
            if (!(entries[index] & SWAPPED) && (!(entries[index] & PRESENT) || entries[index] & OF_FILE))
                continue;
            if (is_as_template(page, (off_t)((range->first + at + index) * PAGE_BYTES)))
                madvise(page, PAGE_BYTES, MADV_DONTNEED);
            else
                range->own[at + index] = 1;
        }
    }
    return 0;
}

void memory_give_back(void)
{
    struct stat memory;
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512], rights[8];
    unsigned long start, end, offset, inode;
    unsigned major_number, minor_number;
    is_complete = pagemap >= 0 && maps && fstat(ZYGOTE_MEMORY, &memory) == 0;
    while (is_complete && fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &start, &end, rights, &offset, &major_number, &minor_number,
                   &inode) != 7 || inode != memory.st_ino || makedev(major_number, minor_number) != memory.st_dev)
            continue;
        struct range *range = &ranges[range_count];
        uint64_t pages = (end - start) / PAGE_BYTES;
        unsigned char *own = range_count < RANGES_MAX && rights[3] == 'p' ? calloc(pages, 1) : NULL;
        is_complete = own != NULL;
        if (!own)
            break;
        *range = (struct range){ (unsigned char *)start, offset / PAGE_BYTES, pages, own };
        range_count++;
        is_complete = look_through(pagemap, range) == 0;
    }
    is_complete = is_complete && range_count > 0;
    if (maps)
        fclose(maps);
    if (pagemap >= 0)
        close(pagemap);
}

int memory_is_known(void)
{
    return is_complete;
}

int memory_become_template(void)
{
    for (int index = 0; index < range_count; index++)
        if (madvise(ranges[index].start, ranges[index].pages * PAGE_BYTES, MADV_DONTNEED) < 0)
            return -1;
    return 0;
}

void memory_each_own(void (*see)(void *start, uint64_t bytes))
{
    for (int index = 0; index < range_count; index++) {
        const struct range *range = &ranges[index];
        for (uint64_t from = 0, to; from < range->pages; from = to + 1) {
            for (to = from; to < range->pages && range->own[to]; to++)
                continue;
            if (to > from)
                see(range->start + from * PAGE_BYTES, (to - from) * PAGE_BYTES);
        }
    }
}

void *memory_find(uint32_t page, uint32_t pages)
{
    for (int index = 0; index < range_count; index++) {
        const struct range *range = &ranges[index];
        if (page >= range->first && (uint64_t)page + pages <= range->first + range->pages)
            return range->start + (page - range->first) * PAGE_BYTES;
    }
    return NULL;
}
