"""A decoy: a process that is nothing of ours, with exactly the words given. It waits until it is killed, and says `ready`.

Usage: decoy.py WORD...
"""

import os
import signal
import sys

PADDING = "x" * 16384

if sys.argv[-1] != PADDING:
    # The kernel shows what lies where the words were put at the start, and no more than there was room for.
    os.execv(sys.executable, [sys.executable, *sys.argv, PADDING])
words = b"".join(word.encode() + b"\0" for word in sys.argv[1:-1])
with open("/proc/self/stat") as file:
    fields = file.read().rsplit(")", 1)[1].split()
start, end = int(fields[45]), int(fields[46])
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    memory.write(words.ljust(end - start, b"\0"))
print("ready", flush=True)
signal.pause()
