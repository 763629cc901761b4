/**
 * Programs that live through a stop and a wake: each computes a half, waits for a file, and computes the other half
 * with the code that it, or its engine, had made before.
 */

export type Resident = {
  name: string
  /** Starts it, and returns when its first half is done. */
  start: string
  /** Lets it go on, and prints its result. */
  finish: string
  result: string
}

function resident(
  name: string,
  result: string,
  { make = "true", run }: { make?: string; run: string },
): Resident {
  const directory = `/tmp/resident-${name}`
  return {
    name,
    result,
    start: `mkdir -p ${directory} && cd ${directory} && ${make}
${run} > out 2>&1 < /dev/null &
for i in $(seq 600); do [ -e half ] && break; sleep 0.1; done; ls half`,
    finish: `cd ${directory} && touch go; for i in $(seq 600); do [ -e done ] && break; sleep 0.1; done; cat out`,
  }
}

const python = `cat > p.py <<'END OF SOURCE'
import os, time, ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7); f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
s = 0
for half in ("half", "done"):
  for i in range(2000):
    if i % 100 == 0: m.seek(0); m.write(b"\\xb8" + (i * 3 + len(half)).to_bytes(4, "little") + b"\\xc3")
    s = (s * 31 + f()) % 2147483647
  if half == "done": print(s, flush=True)
  open(half, "w").close()
  while half == "half" and not os.path.exists("go"): time.sleep(0.05)
END OF SOURCE`

const node = `cat > p.js <<'END OF SOURCE'
const { existsSync, writeFileSync } = require("fs")
let s = 0
const hot = (n) => { for (let i = 0; i < n; i++) s = (s * 31 + i) | 0 }
hot(2000000)
writeFileSync("half", "")
const timer = setInterval(() => {
  if (!existsSync("go")) return
  clearInterval(timer)
  hot(2000000)
  console.log(s)
  writeFileSync("done", "")
}, 50)
END OF SOURCE`

const c = `cat > p.c <<'END OF SOURCE'
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main() {
  unsigned char *m = mmap(0, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 4090;
  unsigned s = 0;
  for (int half = 0; half < 2; half++) {
    for (int i = 0; i < 3000; i++) {
      if (i % 50 == 0) { int v = i * 7 + half; m[0] = 0xb8; memcpy(m + 1, &v, 4); memcpy(m + 5, "\\x01\\xf8\\xc3", 3); }
      s = s * 31 + ((int (*)(int))m)(i);
    }
    if (half) { printf("%u\\n", s); fflush(stdout); }
    fclose(fopen(half ? "done" : "half", "w"));
    while (!half && access("go", F_OK)) usleep(50000);
  }
}
END OF SOURCE
gcc -w -O1 -o p p.c`

export const residents: readonly Resident[] = [
  resident("python", "331500774", { make: python, run: "python3 p.py" }),
  resident("node", "-263093120", { make: node, run: "node p.js" }),
  resident("c", "3578840632", { make: c, run: "./p" }),
]
