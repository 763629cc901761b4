/** Other languages, most of which compile while they run; their packages are in the image of the long form. */

import { ofFile, type Programs } from "./programs.ts"

export const languagePackages = [
  "bc",
  "dc",
  "gawk",
  "gforth",
  "guile-3.0",
  "lua5.4",
  "luajit",
  "m4",
  "mawk",
  "nasm",
  "ocaml-nox",
  "openjdk-17-jdk-headless",
  "php-cli",
  "pypy3",
  "ruby",
  "sbcl",
  "sqlite3",
  "swi-prolog-nox",
  "tcc",
  "tcl",
  "zstd",
]

const lua =
  "local s = 0 for i = 1, N do s = (s * 31 + i) % 2147483647 end local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 20011 end table.sort(t) local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end print(s, t[1], t[10000], f(22), string.format('%.14g', math.sin(1e5)), ('x'):rep(5), (('abc'):gsub('b', '-')))"
const java = `import java.util.*;
import java.util.stream.*;
public class P { interface S { double a(double x); } static int f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }
  public static void main(String[] a) throws Exception { long s = 0; for (int i = 0; i < 3000000; i++) s = s * 31 + (i ^ s >>> 7); Map<Integer, Long> m = new TreeMap<>(); for (int i = 0; i < 50000; i++) m.merge(i % 97, (long) i, Long::sum); S[] l = { x -> x + 1, x -> x * 1.0001, Math::sqrt }; double d = 1; for (int i = 0; i < 200000; i++) d = l[i % 3].a(d); Thread[] t = new Thread[4]; int[] n = new int[1]; for (int i = 0; i < 4; i++) { t[i] = new Thread(() -> { for (int k = 0; k < 2000; k++) synchronized (n) { n[0]++; } }); t[i].start(); } for (Thread x : t) x.join(); System.out.println(s + " " + f(24) + " " + m.hashCode() + " " + d + " " + n[0] + " " + IntStream.range(0, 1000).mapToObj(Integer::toString).collect(Collectors.joining()).hashCode()); } }`

export const languagePrograms: Programs = {
  lua: ofFile("lua5.4", "p.lua", lua.replace("N", "400000")),
  LuaJIT: ofFile("luajit", "p.lua", lua.replace("N", "3000000")),
  "LuaJIT without its compiler": ofFile("luajit -joff", "p.lua", lua.replace("N", "400000")),
  "LuaJIT with foreign functions": ofFile(
    "luajit",
    "p.lua",
    `local ffi = require 'ffi' ffi.cdef 'int abs(int); typedef struct { double x, y; } v;' local a = ffi.new('v[1000]') for i = 0, 999 do a[i].x, a[i].y = i, -i / 3 end local s = 0 for r = 1, 300 do for i = 0, 999 do s = s + a[i].x * a[i].y + ffi.C.abs(-i) end end print(string.format('%.17g', s))`,
  ),
  "Java, compiled and hot": ofFile("java -Xmx96m", "P.java", java),
  "Java, interpreted": ofFile(
    "java -Xint -Xmx96m",
    "P.java",
    java.replace("3000000", "300000").replace("f(24)", "f(17)"),
  ),
  "Java, compiled before": `${ofFile("javac", "P.java", java)} && java -Xmx96m -XX:TieredStopAtLevel=1 P`,
  PyPy: ofFile(
    "pypy3",
    "p.py",
    "s = 0\nfor i in range(2000000): s = (s * 31 + i) % 2147483647\nd = {}\nfor i in range(50000): d[i % 977] = d.get(i % 977, 0) + i\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nprint(s, sum(v * k for k, v in d.items()), f(22), sum(i / 7 for i in range(100000)))",
  ),
  "PyPy with machine code": ofFile(
    "pypy3",
    "p.py",
    "import re, json\nt = json.dumps([{'i': i, 's': str(i) * 3} for i in range(3000)])\nprint(len(re.findall(r'\\d(\\d)\\1', t)), len(json.loads(t)), sorted(t)[5000])",
  ),
  ruby: ofFile(
    "ruby",
    "p.rb",
    "s = 0; 400000.times { |i| s = (s * 31 + i) % 2147483647 }; h = Hash.new(0); 30000.times { |i| h[i % 97] += i }; def f(n) = n < 2 ? n : f(n - 1) + f(n - 2); puts s, h.sum { |k, v| k * v }, f(20), (2**500).to_s[-20..], [3, 1, 2].sort.map { _1 * 2 }.inspect, 'abc'.gsub(/b/) { |x| x.upcase }",
  ),
  "ruby with fibers and threads": ofFile(
    "ruby",
    "p.rb",
    "f = Fiber.new { x = 0; loop { Fiber.yield x; x = x * 3 + 1 } }; puts 30.times.map { f.resume }.last; q = Queue.new; t = 4.times.map { |i| Thread.new { 200.times { |k| q << i * k } } }; t.each(&:join); s = 0; s += q.pop until q.empty?; puts s; puts ObjectSpace.respond_to?(:each_object), [1, [2, [3]]].flatten.sum",
  ),
  php: ofFile(
    "php",
    "p.php",
    "<?php $s = 0; for ($i = 0; $i < 800000; $i++) $s = ($s * 31 + $i) % 2147483647; $a = []; for ($i = 0; $i < 20000; $i++) $a[$i % 97] = ($a[$i % 97] ?? 0) + $i; function f($n) { return $n < 2 ? $n : f($n - 1) + f($n - 2); } echo $s, ' ', array_sum($a), ' ', f(21), ' ', md5(serialize($a)), ' ', preg_replace('/(\\d)(\\d)/', '$2$1', '123456'), ' ', sqrt(2), \"\\n\";",
  ),
  "php with its compiler": ofFile(
    "php -d opcache.enable_cli=1 -d opcache.jit=tracing -d opcache.jit_buffer_size=16M",
    "p.php",
    "<?php function g(int $n): int { $s = 0; for ($i = 0; $i < $n; $i++) { $s = ($s * 33 ^ $i) & 0xffffff; if ($s % 3 == 0) $s += 7; } return $s; } echo g(2000000), ' ', g(5), ' ', hash('crc32b', str_repeat('x', 10000)), \"\\n\";",
  ),
  guile: ofFile(
    "guile --no-auto-compile",
    "p.scm",
    "(define (f n) (if (< n 2) n (+ (f (- n 1)) (f (- n 2))))) (define (loop i s) (if (= i 300000) s (loop (+ i 1) (modulo (+ (* s 31) i) 2147483647)))) (display (list (f 21) (loop 0 0) (expt 3 200) (exact->inexact 1/3) (call/cc (lambda (k) (for-each (lambda (x) (if (> x 3) (k x))) '(1 2 5 9)) 0)))) (newline)",
  ),
  sbcl: ofFile(
    "sbcl --script",
    "p.lisp",
    '(defun f (n) (declare (fixnum n)) (if (< n 2) n (+ (f (- n 1)) (f (- n 2))))) (defun g (n) (let ((s 0)) (declare (type (unsigned-byte 62) s)) (dotimes (i n s) (setf s (mod (+ (* s 31) i) 2147483647))))) (format t "~a ~a ~a ~a~%" (f 25) (g 2000000) (expt 7 150) (loop for i below 200 sum (funcall (compile nil `(lambda (x) (* x ,i))) i)))',
  ),
  "sbcl that compiles again": ofFile(
    "sbcl --script",
    "p.lisp",
    '(let ((s 0)) (dotimes (i 25) (eval `(defun h (x) (logxor (* x ,(+ i 3)) ,i))) (compile (quote h)) (dotimes (k 50) (setf s (mod (+ (* s 7) (funcall (quote h) k)) 1000003)))) (gc :full t) (format t "~a~%" s))',
  ),
  OCaml: ofFile(
    "ocaml",
    "p.ml",
    'let rec f n = if n < 2 then n else f (n - 1) + f (n - 2) let () = let s = ref 0 in for i = 0 to 300000 do s := (!s * 31 + i) mod 2147483647 done; let h = Hashtbl.create 16 in for i = 0 to 20000 do Hashtbl.replace h (i mod 97) i done; Printf.printf "%d %d %d %h\\n" (f 20) !s (Hashtbl.fold (fun k v a -> a + k * v) h 0) (sqrt 2.)',
  ),
  "OCaml, native": `${ofFile(
    "true",
    "p.ml",
    'type t = L | N of t * int * t let rec add x = function L -> N (L, x, L) | N (l, y, r) as t -> if x < y then N (add x l, y, r) else if x > y then N (l, y, add x r) else t let rec sum = function L -> 0 | N (l, x, r) -> sum l * 3 + x + sum r let () = let t = ref L in for i = 1 to 20000 do t := add (i * 7919 mod 20011) !t done; Printf.printf "%d\\n" (sum !t)',
  )} && ocamlfind ocamlopt -o p p.ml 2>/dev/null || ocamlopt -o p p.ml && ./p`,
  forth: ofFile(
    "gforth",
    "p.fs",
    ": f dup 2 < if exit then dup 1- recurse swap 2 - recurse + ; : g 0 300000 0 do 31 * i + 2147483647 mod loop ; 22 f . g . 2e fsqrt 15 set-precision f. cr bye",
  ),
  prolog: ofFile(
    "swipl -q -g main -t halt",
    "p.pl",
    "q(N, Q) :- numlist(1, N, L), permutation(L, Q), safe(Q). safe([]). safe([Q|Qs]) :- no(Q, Qs, 1), safe(Qs). no(_, [], _). no(Q, [A|As], D) :- A =\\= Q + D, A =\\= Q - D, E is D + 1, no(Q, As, E). main :- q(6, Q), writeln(Q), findall(X, q(5, X), Xs), length(Xs, N), X is 2 ** 200 mod 1000003, writeln(N-X).",
  ),
  tcl: ofFile(
    "tclsh",
    "p.tcl",
    'proc f n { expr { $n < 2 ? $n : [f [expr {$n - 1}]] + [f [expr {$n - 2}]] } }\nset s 0; for {set i 0} {$i < 200000} {incr i} { set s [expr {($s * 31 + $i) % 2147483647}] }\nfor {set i 0} {$i < 500} {incr i} { lappend l [expr {$i * 7919 % 503}]; eval "proc g$i {} { return $i }"; incr t [g$i] }\nputs "[f 17] $s [lrange [lsort -integer $l] 0 5] $t [string map {a b} banana] [expr {sqrt(2)}]"',
  ),
  tcc: ofFile(
    "tcc -run",
    "p.c",
    '#include <stdio.h>\nint f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); } int main() { unsigned s = 0; for (int i = 0; i < 2000000; i++) s = s * 31 + i; double d = 0; for (int i = 1; i < 9999; i++) d += 1.0 / i; printf("%d %u %.17g\\n", f(22), s, d); return 0; }',
  ),
  "tcc, over and over": `cd $(mktemp -d); for i in 1 2 3 4 5 6 7 8 9; do echo "#include <stdio.h>
int main() { int s = $i; for (int i = 0; i < 1000; i++) s = s * 7 + $i; printf(\\"%d\\\\n\\", s); return 0; }" > p.c; tcc -run p.c; done`,
  nasm: `cd $(mktemp -d); printf 'global main\\nsection .text\\nmain: mov ecx, 5000\\nxor eax, eax\\n.l: lea eax, [eax*4+eax+3]\\nror eax, 7\\nbsf edx, ecx\\nadd eax, edx\\ndec ecx\\njnz .l\\nand eax, 127\\nret\\n' > p.s; nasm -f elf64 p.s && gcc -no-pie -o p p.o && ./p; echo $?`,
  bc: `printf 'define f(n) {\\nif (n < 2) return (n);\\nreturn (f(n-1) + f(n-2));\\n}\\nscale=60\\n4*a(1)\\ne(1)\\nsqrt(2)\\nf(15)\\n2^300\\n' | bc -lq`,
  dc: `echo '[la1+dsa*pla20>y]sy0sa1lyx 50k2vp 2 200^ 1000007%p' | dc`,
  gawk: `gawk 'BEGIN { for (i = 0; i < 100000; i++) s = xor(s, lshift(i, i % 5)); print s; n = split("c,a,b", a, ","); asort(a); for (i = 1; i <= n; i++) printf "%s", a[i]; print gensub(/(b)(c)/, "\\\\2\\\\1", "g", "abcbc"), strftime("%F", 86400, 1) }'`,
  mawk: `mawk 'BEGIN { for (i = 0; i < 300000; i++) { s = (s * 31 + i) % 2147483647; a[i % 97] += i } for (k in a) t += a[k] * k; print s, t }'`,
  m4: `echo 'define(\`p'"'"', \`eval($1 ** 2)'"'"')p(12) p(99) len(\`abcdef'"'"') translit(\`gnu'"'"', a-z, A-Z)' | m4`,
  "the shell of SQLite": `cd $(mktemp -d); sqlite3 d "create table t(a integer primary key, b); with recursive c(i) as (select 1 union all select i + 1 from c where i < 8000) insert into t select i, i * 7919 % 8009 from c; create index x on t(b); select count(*), sum(a * b) from t; select a from t where b between 100 and 110 order by b; delete from t where a % 3 = 0; vacuum; pragma integrity_check; select total(b), group_concat(a) from t where b < 20;"`,
  "windows of SQLite": `sqlite3 :memory: "with recursive c(i) as (select 1 union all select i + 1 from c where i < 500) select sum(r), max(l) from (select rank() over (partition by i % 7 order by i * 31 % 101) r, lag(i, 3) over (order by i) l from c); select json_group_array(value * 2) from json_each('[1,2,3]'); select printf('%.15g', sqrt(2.0)), hex(zeroblob(3));"`,
  zstd: `seq 1 60000 | zstd -q -3 | sha1sum; seq 1 60000 | zstd -q -9 | zstd -dq | md5sum`,
}
