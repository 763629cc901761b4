/**
 * Programs that write, change, move and replace machine code: an emulator that runs a translation of former bytes gives
 * itself away here.
 */

import { ofC, type Programs } from "./programs.ts"

const head = `#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
typedef int (*function)(int);
/* mov eax, imm; add eax, edi; ret */
static void emit(unsigned char *at, int value) { at[0] = 0xb8; memcpy(at + 1, &value, 4); memcpy(at + 5, "\\x01\\xf8\\xc3", 3); }
static unsigned char *page(int count) { return mmap(0, 4096 * count, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
`
const sources: Record<string, string> = {
  "changes an operand": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 5000; i++) { emit(m, i * 3); s = s * 31 + ((function)m)(i); } printf("%u\\n", s); }`,
  "changes an instruction": `int main() { unsigned char *m = page(1); int s = 0; memcpy(m, "\\x89\\xf8\\x01\\xf8\\xc3", 5); for (int i = 0; i < 3000; i++) { m[2] = "\\x01\\x29\\x31\\x21"[i % 4]; s += ((function)m)(i); } printf("%d\\n", s); }`,
  "writes across a border of pages": `int main() { unsigned char *m = page(2) + 4092; unsigned s = 0; for (int i = 0; i < 3000; i++) { emit(m, i << 9); s += ((function)m)(i); } printf("%u\\n", s); }`,
  "changes itself while it runs": `int main() { unsigned char *m = page(1), code[] = { 0x48, 0x8d, 0x05, 6, 0, 0, 0, 0x89, 0x78, 1, 0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3 }; code[3] = 6; memcpy(m, code, sizeof code); unsigned s = 0; for (int i = 1; i < 2000; i++) s = s * 7 + ((function)m)(i); printf("%u\\n", s); }`,
  "is written, then protected": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 1500; i++) { mprotect(m, 4096, 3); emit(m, i ^ 0x55aa); mprotect(m, 4096, 5); s += ((function)m)(1); } printf("%u\\n", s); }`,
  "is mapped twice": `int main() { int f = memfd_create("c", 0); ftruncate(f, 4096); unsigned char *w = mmap(0, 4096, 3, MAP_SHARED, f, 0), *x = mmap(0, 4096, 5, MAP_SHARED, f, 0); unsigned s = 0; for (int i = 0; i < 3000; i++) { emit(w, i * 17); s ^= ((function)x)(i) + s * 3; } printf("%u\\n", s); }`,
  "is another page at the same address": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 1200; i++) { m = mmap(m, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); emit(m, i * i); s += ((function)m)(i); munmap(m, 4096); } printf("%u\\n", s); }`,
  "is of two files in turns": `int main() { char n[2][40]; int f[2]; for (int i = 0; i < 2; i++) { strcpy(n[i], "/tmp/codeXXXXXX"); f[i] = mkstemp(n[i]); unsigned char b[4096] = { 0 }; emit(b, 1000 * (i + 1)); write(f[i], b, 4096); } void *at = page(1); unsigned s = 0; for (int i = 0; i < 1500; i++) { mmap(at, 4096, 5, MAP_PRIVATE | MAP_FIXED, f[i * 7 % 3 % 2], 0); s = s * 5 + ((function)at)(i); } printf("%u\\n", s); unlink(n[0]); unlink(n[1]); }`,
  "is read from a file": `int main() { char n[] = "/tmp/codeXXXXXX"; int f = mkstemp(n); unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 1000; i++) { unsigned char b[8]; emit(b, i * 13); pwrite(f, b, 8, 0); pread(f, m, 8, 0); s += ((function)m)(i); } printf("%u\\n", s); unlink(n); }`,
  "comes through a pipe": `int main() { int p[2]; pipe(p); unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 1500; i++) { unsigned char b[8]; emit(b, -i); write(p[1], b, 8); read(p[0], m, 8); s = s * 3 + ((function)m)(i * 2); } printf("%u\\n", s); }`,
  "of a child differs from the parent's": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 40; i++) { emit(m, i); ((function)m)(0); int p[2]; pipe(p); if (!fork()) { emit(m, i + 100); int r = ((function)m)(i); write(p[1], &r, 4); _exit(0); } int r; read(p[0], &r, 4); wait(0); s = s * 11 + r + ((function)m)(i); close(p[0]); close(p[1]); } printf("%u\\n", s); }`,
  "of a shared mapping, written by a child": `int main() { unsigned char *m = mmap(0, 4096, 7, MAP_SHARED | MAP_ANONYMOUS, -1, 0); unsigned s = 0; for (int i = 0; i < 60; i++) { emit(m, i); s += ((function)m)(1); if (!fork()) { emit(m, i * 1000); _exit(0); } wait(0); s = s * 3 + ((function)m)(2); } printf("%u\\n", s); }`,
  "is written by another thread": `static unsigned char *m; static pthread_barrier_t b; static void *writer(void *x) { for (int i = 0; i < 300; i++) { emit(m, i * 5); pthread_barrier_wait(&b); pthread_barrier_wait(&b); } return 0; } int main() { m = page(1); pthread_barrier_init(&b, 0, 2); pthread_t t; pthread_create(&t, 0, writer, 0); unsigned s = 0; for (int i = 0; i < 300; i++) { pthread_barrier_wait(&b); s = s * 7 + ((function)m)(i); pthread_barrier_wait(&b); } pthread_join(t, 0); printf("%u\\n", s); }`,
  "is moved": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 800; i++) { emit(m, i); s += ((function)m)(i); m = mremap(m, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(0x600000000000 + (i % 5) * 65536L)); s ^= ((function)m)(3); } printf("%u\\n", s); }`,
  "fills many pages": `int main() { int n = 600; unsigned char *m = page(n); unsigned s = 0; for (int r = 0; r < 4; r++) { for (int i = 0; i < n; i++) emit(m + 4096 * i + (i * 7) % 4000, i + r); for (int i = n; i--;) s = s * 3 + ((function)(m + 4096 * i + (i * 7) % 4000))(r); } printf("%u\\n", s); }`,
  "is given back and comes again": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int i = 0; i < 1000; i++) { emit(m, i * 9); s += ((function)m)(i); madvise(m, 4096, MADV_DONTNEED); s += m[0]; } printf("%u\\n", s); }`,
  "of two libraries at one address": `int main() { unsigned s = 0; for (int k = 0; k < 2; k++) { char c[300]; sprintf(c, "echo 'int f(int x) { return x * %d + %d; }' | gcc -shared -fPIC -o l%d.so -x c -", k + 3, k * 77, k); system(c); } for (int i = 0; i < 60; i++) { void *l = dlopen(i % 2 ? "./l1.so" : "./l0.so", RTLD_NOW); s = s * 5 + ((function)dlsym(l, "f"))(i); dlclose(l); } printf("%u\\n", s); }`,
  "of a program that is replaced": `int main() { char c[200], b[64]; unsigned s = 0; for (int i = 0; i < 4; i++) { sprintf(c, "echo 'int main() { return %d; }' | gcc -o q.new -x c - && mv q.new q", 10 + i * 7); system(c); for (int k = 0; k < 3; k++) s = s * 9 + WEXITSTATUS(system("./q")); } printf("%u\\n", s); }`,
  "on the stack": `int main() { unsigned s = 0; for (int i = 0; i < 500; i++) { int add(int x) { return x + i; } function f = add; s = s * 3 + f(i * 2); } printf("%u\\n", s); }`,
  "faults, is mended and goes on": `static unsigned char *m; static int n; static void mend(int s, siginfo_t *i, void *c) { mprotect(m, 4096, 7); n++; } int main() { m = page(1); struct sigaction a = { .sa_sigaction = mend, .sa_flags = SA_SIGINFO }; sigaction(SIGSEGV, &a, 0); unsigned s = 0; for (int i = 0; i < 400; i++) { mprotect(m, 4096, 7); emit(m, i); mprotect(m, 4096, 1); s += ((function)m)(i); mprotect(m, 4096, 0); emit(m, i + 1); s += ((function)m)(i); } printf("%u %d\\n", s, n); }`,
  "has a breakpoint for a moment": `static unsigned char *m, was; static int n; static void trap(int s, siginfo_t *i, void *c) { n++; *m = was; ((ucontext_t *)c)->uc_mcontext.gregs[REG_RIP]--; } int main() { m = page(1); struct sigaction a = { .sa_sigaction = trap, .sa_flags = SA_SIGINFO }; sigaction(SIGTRAP, &a, 0); unsigned s = 0; for (int i = 0; i < 400; i++) { emit(m, i * 3); was = *m; if (i % 3 == 0) *m = 0xcc; s = s * 3 + ((function)m)(i); } printf("%u %d\\n", s, n); }`,
  "is undefined, then defined": `static jmp_buf j; static int n; static void ill(int s) { n++; siglongjmp(j, 1); } int main() { unsigned char *m = page(1); signal(SIGILL, ill); unsigned s = 0; for (int i = 0; i < 300; i++) { emit(m, i); if (i % 4 == 1) memcpy(m, "\\x0f\\x0b", 2); if (!sigsetjmp(j, 1)) s = s * 3 + ((function)m)(i); } printf("%u %d\\n", s, n); }`,
  "of a machine with its own code": `enum { PUSH, ADD, MUL, SWAP, JNZ, END }; int main() { unsigned char *m = page(4), *p; unsigned s = 0; for (int k = 0; k < 300; k++) { p = m; memcpy(p, "\\x89\\xf8", 2); p += 2; unsigned x = k * 2654435761u; for (int i = 0; i < 60; i++) { x ^= x << 13, x ^= x >> 17, x ^= x << 5; switch (x % 4) { case 0: *p++ = 5; memcpy(p, &x, 4); p += 4; break; case 1: memcpy(p, "\\x0f\\xaf\\xc7", 3); p += 3; break; case 2: *p++ = 0x35; memcpy(p, &x, 4); p += 4; break; default: memcpy(p, "\\xc1\\xc0", 2); p[2] = x >> 8 & 31; p += 3; } } *p = 0xc3; s = s * 31 + ((function)m)(k + 1); } printf("%u\\n", s); }`,
  "changes in a loop that is hot": `int main() { unsigned char *m = page(1); unsigned s = 0; for (int r = 0; r < 40; r++) { emit(m, r * 1001); for (int i = 0; i < 20000; i++) s = s * 3 + ((function)m)(i); } printf("%u\\n", s); }`,
}

export const machineCodePrograms: Programs = Object.fromEntries(
  Object.entries(sources).map(([name, source]) => [
    `machine code ${name}`,
    ofC(head + source, name === "on the stack" ? "-O1 -z execstack" : "-O1"),
  ]),
)
