/** Compiled programs: arithmetic, vectors, threads, signals, files, and the compilers themselves. */

import { ofC, ofCpp, type Programs } from "./programs.ts"

const head = `#define _GNU_SOURCE
#include <emmintrin.h>
#include <fcntl.h>
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
`
const inC: Record<string, string> = {
  "floating point": `int main() { double s = 0; for (int i = 1; i < 300000; i++) s += sin(i) * exp(-i / 1e5) / sqrt(i) + fma(i, 1e-9, -s * 1e-7); printf("%a %.17g\\n", s, pow(1.0000001, 1e7)); }`,
  "numbers of 80 bits": `int main() { long double s = 0; for (int i = 1; i < 60000; i++) s += 1.0L / i * (i & 1 ? 1 : -1) * sinl(i); printf("%La %.21Lg\\n", s, sqrtl(2) * expl(1)); }`,
  "denormal numbers": `int main() { volatile double d = DBL_MIN; volatile float f = FLT_MIN; for (int i = 0; i < 20; i++) { d /= 3; f /= 2; } printf("%a %a %d\\n", d, f, fpclassify(d) == FP_SUBNORMAL); }`,
  "ways of rounding": `int main() { int m[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO }; for (int i = 0; i < 4; i++) { fesetround(m[i]); volatile double x = 1, y = 3; printf("%a %ld %ld\\n", x / y, lrint(2.5), lrint(-1.1)); } }`,
  "flags of floating point": `int main() { volatile double z = 0, one = 1; feclearexcept(FE_ALL_EXCEPT); volatile double r = one / z; printf("%d", !!fetestexcept(FE_DIVBYZERO)); r = sqrt(-one); printf(" %d", !!fetestexcept(FE_INVALID)); r = DBL_MAX * 2 * one; printf(" %d %d\\n", !!fetestexcept(FE_OVERFLOW), isinf(r)); }`,
  "a division that traps": `static sigjmp_buf j; static void h(int s, siginfo_t *i, void *c) { siglongjmp(j, i->si_code); } int main() { struct sigaction a = { .sa_sigaction = h, .sa_flags = SA_SIGINFO }; sigaction(SIGFPE, &a, 0); int n = 0; for (int i = 0; i < 300; i++) { volatile int z = i % 3; int c = sigsetjmp(j, 1); if (c) n += c; else n += 100 / z; } printf("%d\\n", n); }`,
  "vectors of SSE2": `int main() { __m128i a = _mm_set_epi32(1, 2, 3, 4), b = _mm_set1_epi16(3); for (int i = 0; i < 100000; i++) { a = _mm_add_epi32(_mm_xor_si128(a, _mm_slli_epi32(a, 5)), b); b = _mm_mullo_epi16(_mm_shuffle_epi32(b, 0x39), _mm_unpacklo_epi8(a, b)); } int o[4]; _mm_storeu_si128((void *)o, _mm_sub_epi32(a, b)); printf("%d %d %d %d\\n", o[0], o[1], o[2], o[3]); }`,
  "vectors of doubles": `int main() { __m128d a = _mm_set_pd(1.5, -2.5), b = _mm_set1_pd(1e-3); for (int i = 0; i < 100000; i++) a = _mm_div_pd(_mm_add_pd(_mm_mul_pd(a, a), b), _mm_sqrt_pd(_mm_add_pd(_mm_mul_pd(a, a), _mm_set1_pd(i + 1)))); double o[2]; _mm_storeu_pd(o, a); printf("%a %a %d\\n", o[0], o[1], _mm_cvtsd_si32(a)); }`,
  "numbers of 128 bits": `int main() { unsigned __int128 x = 1, m = ((unsigned __int128)1 << 127) - 1; for (int i = 0; i < 20000; i++) x = (x * 6364136223846793005ull + i) % m; printf("%016llx%016llx\\n", (unsigned long long)(x >> 64), (unsigned long long)x); }`,
  bits: `int main() { uint64_t x = 88172645463325252ull, s = 0; for (int i = 0; i < 200000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; s += __builtin_popcountll(x) * __builtin_clzll(x | 1) + __builtin_ctzll(x | 1ull << 63) + __builtin_bswap64(x) % 1000; } printf("%lu\\n", s); }`,
  "instructions on strings": `int main() { static unsigned char a[70000], b[70000]; for (int i = 0; i < 70000; i++) a[i] = i * i; unsigned s = 0; for (int n = 1; n < 60000; n = n * 3 / 2 + 1) { void *d = b + n % 13, *f = a + n % 7; size_t c = n; __asm__ volatile("rep movsb" : "+D"(d), "+S"(f), "+c"(c)::"memory"); memmove(b + 3, b + n % 5, n); s = s * 31 + b[n / 2] + memcmp(a, b, n) % 2 + strlen((char *)b); } printf("%u\\n", s); }`,
  sorting: `static int c(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); } int main() { static double a[40000]; unsigned x = 1; for (int i = 0; i < 40000; i++) a[i] = (x = x * 1664525 + 1013904223) / 7.0; qsort(a, 40000, 8, c); printf("%.3f %.3f %.3f\\n", a[0], a[20000], a[39999]); }`,
  "threads with a lock": `static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; static long n; static void *f(void *x) { for (int i = 0; i < 20000; i++) { pthread_mutex_lock(&m); n += (long)x; pthread_mutex_unlock(&m); } return 0; } int main() { pthread_t t[8]; for (long i = 0; i < 8; i++) pthread_create(t + i, 0, f, (void *)i); for (int i = 0; i < 8; i++) pthread_join(t[i], 0); printf("%ld\\n", n); }`,
  "threads without a lock": `static atomic_long n; static atomic_uint x; static void *f(void *p) { for (int i = 0; i < 30000; i++) { n++; unsigned o = x; while (!atomic_compare_exchange_weak(&x, &o, o + (i ^ (unsigned)(long)p))) ; } return 0; } int main() { pthread_t t[6]; for (long i = 0; i < 6; i++) pthread_create(t + i, 0, f, (void *)i); for (int i = 0; i < 6; i++) pthread_join(t[i], 0); printf("%ld %u\\n", n, x); }`,
  "a ring of threads": `static int p[9][2]; static void *f(void *x) { long i = (long)x, v; while (read(p[i][0], &v, 8) == 8) { v = v * 3 + i; write(p[i + 1][1], &v, 8); } close(p[i + 1][1]); return 0; } int main() { for (int i = 0; i < 9; i++) pipe(p[i]); for (long i = 0; i < 8; i++) { pthread_t t; pthread_create(&t, 0, f, (void *)i); } long v, s = 0; for (long i = 0; i < 300; i++) { v = i; write(p[0][1], &v, 8); read(p[8][0], &v, 8); s ^= v; } printf("%ld\\n", s); }`,
  "variables of threads": `static __thread int v; static int s[5]; static void *f(void *x) { for (int i = 0; i < 50000; i++) v += (long)x; s[(long)x] = v; return 0; } int main() { pthread_t t[5]; for (long i = 0; i < 5; i++) pthread_create(t + i, 0, f, (void *)i); for (int i = 0; i < 5; i++) { pthread_join(t[i], 0); printf("%d ", s[i]); } printf("%d\\n", v); }`,
  "signals in a queue": `static int s; static void h(int g, siginfo_t *i, void *c) { s = s * 3 + i->si_value.sival_int; } int main() { struct sigaction a = { .sa_sigaction = h, .sa_flags = SA_SIGINFO }; sigaction(SIGRTMIN, &a, 0); sigset_t m; sigemptyset(&m); sigaddset(&m, SIGRTMIN); sigprocmask(SIG_BLOCK, &m, 0); for (int i = 0; i < 30; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){ i }); sigprocmask(SIG_UNBLOCK, &m, 0); printf("%d\\n", s); }`,
  "a stack for signals": `static int n; static char *b; static void h(int s) { char x[2000]; memset(x, n, 2000); n += (x > b && x < b + 65536) + x[9]; } int main() { b = malloc(65536); stack_t k = { b, 0, 65536 }; sigaltstack(&k, 0); struct sigaction a = { .sa_handler = h, .sa_flags = SA_ONSTACK }; sigaction(SIGUSR1, &a, 0); for (int i = 0; i < 5; i++) raise(SIGUSR1); printf("%d\\n", n); }`,
  "jumps over frames": `static jmp_buf j; static int d(int n) { if (n == 0) longjmp(j, 7); return d(n - 1) + 1; } int main() { volatile int s = 0; for (volatile int i = 0; i < 2000; i++) { int r = setjmp(j); if (!r) s += d(i % 50); else s += r * i; } printf("%d\\n", s); }`,
  coroutines: `static ucontext_t a, b; static int v; static void f() { for (int i = 0;; i++) { v += i * i; swapcontext(&b, &a); } } int main() { char *k = malloc(65536); getcontext(&b); b.uc_stack.ss_sp = k; b.uc_stack.ss_size = 65536; makecontext(&b, f, 0); for (int i = 0; i < 3000; i++) swapcontext(&a, &b); printf("%d\\n", v); }`,
  "a deep stack": `static long f(int n) { volatile char b[200]; b[n % 200] = n; return n ? f(n - 1) + b[n % 200] : 0; } int main() { printf("%ld\\n", f(20000)); }`,
  "a traced process": `int main() { pid_t c = fork(); if (!c) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); volatile int x = 0; for (int i = 0; i < 50; i++) x += i; _exit(x & 127); } int s, n = 0; waitpid(c, &s, 0); for (int i = 0; i < 60; i++) { ptrace(PTRACE_SINGLESTEP, c, 0, 0); waitpid(c, &s, 0); n += WIFSTOPPED(s); } ptrace(PTRACE_CONT, c, 0, 0); waitpid(c, &s, 0); printf("%d %d\\n", n, WEXITSTATUS(s)); }`,
  processes: `int main() { int s = 0; for (int i = 0; i < 60; i++) { pid_t c = i % 2 ? fork() : vfork(); if (!c) _exit(i * 3); int w; waitpid(c, &w, 0); s = s * 5 + WEXITSTATUS(w); } printf("%d\\n", s); }`,
  "a file in memory": `int main() { char n[] = "/tmp/mapXXXXXX"; int f = mkstemp(n); ftruncate(f, 8 << 20); unsigned *m = mmap(0, 8 << 20, 3, MAP_SHARED, f, 0); for (int i = 0; i < 2 << 20; i += 97) m[i] = i * 2654435761u; msync(m, 8 << 20, MS_SYNC); munmap(m, 8 << 20); unsigned s = 0, b[1024]; while (read(f, b, 4096) == 4096) for (int i = 0; i < 1024; i++) s = s * 31 + b[i]; printf("%u\\n", s); unlink(n); }`,
  "much memory": `int main() { size_t n = 96 << 20; unsigned char *m = malloc(n); for (size_t i = 0; i < n; i += 512) m[i] = i >> 9; unsigned long s = 0; for (size_t i = 0; i < n; i += 4096) s = s * 31 + m[i]; printf("%lu\\n", s); }`,
  "events and timers": `int main() { int e = epoll_create1(0), v = eventfd(0, 0), t = timerfd_create(CLOCK_MONOTONIC, 0); struct itimerspec i = { { 0, 2000000 }, { 0, 2000000 } }; timerfd_settime(t, 0, &i, 0); struct epoll_event a = { EPOLLIN, { .fd = v } }, b = { EPOLLIN, { .fd = t } }, o; epoll_ctl(e, 1, v, &a); epoll_ctl(e, 1, t, &b); uint64_t x = 3; write(v, &x, 8); int seen = 0; for (int k = 0; k < 12; k++) { epoll_wait(e, &o, 1, 2000); read(o.data.fd, &x, 8); seen |= o.data.fd == v ? 1 : 2; } printf("%d\\n", seen); }`,
  "variable arguments": `static double f(int n, ...) { va_list l; va_start(l, n); double s = 0; for (int i = 0; i < n; i++) s = s / 2 + (i % 2 ? va_arg(l, double) : va_arg(l, int)); va_end(l); return s; } int main() { printf("%a %a\\n", f(12, 1, 2.5, 3, 4.5, 5, 6.5, 7, 8.5, 9, 10.5, 11, 12.5), f(2, 7, 0.1)); char b[99]; snprintf(b, 99, "%5.2f|%-8s|%+d|%#x|%c", 3.14159, "ab", 42, 255, 'z'); puts(b); }`,
  "tables of jumps": `int main() { static void *t[] = { &&a, &&b, &&c, &&d }; unsigned x = 1, n = 0; next: if (n++ > 200000) { printf("%u\\n", x); return 0; } goto *t[x >> 7 & 3]; a: x = x * 5 + 1; goto next; b: x ^= x << 3 | 1; goto next; c: x += x >> 5 ^ 77; goto next; d: x = ~x * 3; goto next; }`,
}

const inCpp: Record<string, string> = {
  containers: `#include <algorithm>
#include <iostream>
#include <map>
#include <numeric>
#include <string>
#include <unordered_map>
#include <vector>
int main() { std::map<std::string, std::vector<int>> m; std::unordered_map<int, int> u; for (int i = 0; i < 20000; i++) { m["k" + std::to_string(i % 313)].push_back(i); u[i * 31 % 1009] += i; } long s = 0; for (auto &[k, v] : m) s = s * 3 + std::accumulate(v.begin(), v.end(), 0) + k.size(); for (int i = 0; i < 1009; i++) s ^= u[i]; std::cout << s << "\\n"; }`,
  exceptions: `#include <iostream>
#include <stdexcept>
struct D { int *n; ~D() { ++*n; } };
int f(int i, int *n) { D d{n}; if (i % 3 == 0) throw std::runtime_error("x"); if (i % 5 == 0) throw i; return i; }
int main() { int n = 0, s = 0; for (int i = 0; i < 3000; i++) try { s += f(i, &n); } catch (int k) { s -= k; } catch (std::exception &e) { s += e.what()[0]; } std::cout << s << ' ' << n << "\\n"; }`,
  templates: `#include <array>
#include <iostream>
#include <utility>
template <size_t N> struct F { static constexpr unsigned long v = F<N - 1>::v + F<N - 2>::v; }; template <> struct F<0> { static constexpr unsigned long v = 0; }; template <> struct F<1> { static constexpr unsigned long v = 1; };
template <size_t... I> auto all(std::index_sequence<I...>) { return std::array<unsigned long, sizeof...(I)>{ F<I>::v... }; }
int main() { unsigned long s = 0; for (auto v : all(std::make_index_sequence<90>())) s ^= v * 31; std::cout << s << "\\n"; }`,
  "virtual functions": `#include <iostream>
#include <memory>
#include <vector>
struct S { virtual double a(double x) const = 0; virtual ~S() {} }; struct A : S { double a(double x) const override { return x * 1.5; } }; struct B : A { double a(double x) const override { return A::a(x) - 2; } }; struct C : S { double k; C(double k) : k(k) {} double a(double x) const override { return k / (x + 10); } };
int main() { std::vector<std::unique_ptr<S>> v; for (int i = 0; i < 900; i++) { if (i % 3 == 0) v.emplace_back(new A); else if (i % 3 == 1) v.emplace_back(new B); else v.emplace_back(new C(i)); } double x = 1; for (int r = 0; r < 50; r++) for (auto &s : v) { x = s->a(x); if (x > 1e6) x /= 1e6; } std::cout.precision(17); std::cout << x << "\\n"; }`,
}

export const compiledPrograms: Programs = {
  ...Object.fromEntries(Object.entries(inC).map(([name, source]) => [`C: ${name}`, ofC(head + source)])),
  ...Object.fromEntries(Object.entries(inCpp).map(([name, source]) => [`C++: ${name}`, ofCpp(source)])),
  "the same code from three levels of optimization": `for o in -O0 -O2 -Os; do ${`(${ofC(head + (inC["bits"] ?? ""), "$o")})`}; done`,
  "an assembler": `cd $(mktemp -d); printf '.globl main\\nmain: mov $1000,%%ecx; xor %%eax,%%eax; 1: add %%ecx,%%eax; rol $3,%%eax; loop 1b; and $127,%%eax; ret\\n' > p.s; gcc -o p p.s; ./p; echo $?; objdump -d p 2>/dev/null | grep -c rol`,
  "a build with make": `cd $(mktemp -d); for i in 1 2 3 4 5; do echo "int f$i(int x) { return x * $i; }" > f$i.c; done; echo 'int f1(int), f5(int); int main() { return f1(3) + f5(4); }' > m.c; printf 'p: m.o f1.o f2.o f3.o f4.o f5.o\\n\\tgcc -o p $^\\n' > Makefile; make -s -j3; ./p; echo $?; make -q && echo current`,
  "an archive of objects": `cd $(mktemp -d); for i in 1 2 3; do echo "int g$i(void) { return $i; }" | gcc -c -o g$i.o -x c -; done; ar rcs libg.a g1.o g2.o g3.o; echo 'int g2(void); int main() { return g2() + 40; }' | gcc -o p -x c - -x none libg.a; ./p; echo $?; nm libg.a | grep -c T`,
  "the compiler's own output": `cd $(mktemp -d); echo 'double f(double *a, int n) { double s = 0; for (int i = 0; i < n; i++) s += a[i] * a[n - i - 1]; return s; }' > p.c; gcc -O3 -S -o - p.c | sha256sum; gcc -O1 -fdump-tree-optimized -c p.c; cat p.c.*optimized | sha256sum`,
}
