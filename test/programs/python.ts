/** Programs of Python. */

import { ofFile, type Programs } from "./programs.ts"

const sources: Record<string, string> = {
  "big numbers": "print(hash(3**4000) , 3**4000 % 10**50, pow(3, 10**60, 10**40 + 7))",
  factorial: "import math; print(str(math.factorial(1500))[-400:-360], math.comb(900, 450) % 10**30)",
  floats:
    "import math; print(repr(sum(math.sin(i) / (i + 1) for i in range(20000))), math.fsum([0.1] * 10), (0.1).hex(), float('1e-320') * 3)",
  decimals: "from decimal import *; getcontext().prec = 200; print(Decimal(2).sqrt(), Decimal(1).exp())",
  fractions: "from fractions import Fraction as F; print(sum(F(1, i) for i in range(1, 120)))",
  "complex numbers":
    "import cmath; z = 0.3 + 0.5j\nfor i in range(2000): z = z * z + complex(-0.4, 0.6)\nprint(z, cmath.exp(1j * cmath.pi / 3))",
  "regular expressions":
    "import re; t = ' '.join(str(i * i) for i in range(3000)); print(len(re.findall(r'(\\d)\\1', t)), re.sub(r'(\\d)(\\d)', r'\\2\\1', t)[:60], bool(re.match(r'(a+)+$', 'a' * 20)))",
  json: "import json; d = {str(i): [i, i / 7, None, {'x': 'ä' * (i % 5)}] for i in range(800)}; s = json.dumps(d, sort_keys=True); print(len(s), hash(s) == hash(json.dumps(json.loads(s), sort_keys=True)))",
  zlib: "import zlib; d = b''.join(str(i * i).encode() for i in range(20000)); c = zlib.compress(d, 6); print(len(c), zlib.crc32(c), zlib.adler32(zlib.decompress(c)))",
  "lzma and bz2":
    "import lzma, bz2, hashlib; d = bytes(i * i % 251 for i in range(60000)); print(hashlib.sha1(bz2.compress(d)).hexdigest(), lzma.decompress(lzma.compress(d, preset=1)) == d)",
  digests:
    "import hashlib\nfor n in ('md5', 'sha1', 'sha256', 'sha3_512', 'blake2s'): print(n, hashlib.new(n, b'x' * 100000).hexdigest())",
  structures:
    "import struct; print(struct.pack('<hIqfd3s', -2, 7, -9, 1.5, 2.25, b'abc').hex(), struct.unpack('>d', bytes.fromhex('400921fb54442d18')))",
  "chance with a seed":
    "import random; random.seed(42); print([random.random() for _ in range(3)], random.sample(range(10**6), 5), random.gauss(0, 1))",
  sorting:
    "import random; random.seed(1); a = [random.random() for _ in range(30000)]; a.sort(); print(a[0], a[15000], sum(x * i for i, x in enumerate(a)))",
  threads:
    "import threading; n = [0]; l = threading.Lock()\ndef f():\n  for _ in range(3000):\n    with l: n[0] += 1\nt = [threading.Thread(target=f) for _ in range(6)]\n[x.start() for x in t]; [x.join() for x in t]; print(n[0])",
  "queues of threads":
    "import threading, queue; q, r = queue.Queue(5), queue.Queue()\ndef w():\n  while (i := q.get()) is not None: r.put(i * i)\nt = [threading.Thread(target=w) for _ in range(4)]\n[x.start() for x in t]; [q.put(i) for i in range(500)]; [q.put(None) for _ in t]; [x.join() for x in t]; print(sum(r.get() for _ in range(500)))",
  processes:
    "import multiprocessing as m\ndef f(x): return sum(i * x for i in range(2000))\nif __name__ == '__main__':\n  with m.Pool(3) as p: print(p.map(f, range(12)))",
  "asynchronous work":
    "import asyncio\nasync def f(i):\n  for _ in range(i % 5): await asyncio.sleep(0)\n  return i * i\nasync def main(): print(sum(await asyncio.gather(*(f(i) for i in range(800)))))\nasyncio.run(main())",
  "machine code in memory":
    "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7); f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nr = []\nfor i in range(400):\n  m.seek(0); m.write(b'\\xb8' + (i * 3).to_bytes(4, 'little') + b'\\xc3'); r.append(f())\nprint(sum(r), r[:5], r[-1])",
  signals:
    "import signal, os\nn = []\nfor s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM): signal.signal(s, lambda s, f: n.append(s))\nfor i in range(30): os.kill(os.getpid(), [10, 12, 15][i % 3])\nprint(len(n), sum(n))",
  "an alarm":
    "import signal\nclass T(Exception): pass\ndef h(s, f): raise T\nsignal.signal(signal.SIGALRM, h); signal.setitimer(signal.ITIMER_REAL, 0.05)\ntry:\n  for i in iter(int, 1): pass\nexcept T: print('rang')",
  "a database":
    "import sqlite3; d = sqlite3.connect(':memory:'); d.execute('create table t(a integer primary key, b text, c real)'); d.executemany('insert into t values(?,?,?)', ((i, 'n%d' % (i % 37), i / 3) for i in range(4000))); print(d.execute('select b, count(*), sum(c) from t group by b order by 3 desc limit 5').fetchall())",
  "a database on disk":
    "import sqlite3, tempfile, os; p = tempfile.mktemp(); d = sqlite3.connect(p); d.execute('pragma journal_mode=wal'); d.execute('create table t(a, b)')\nfor k in range(5):\n  with d: d.executemany('insert into t values(?,?)', ((i, i * k) for i in range(300)))\nd.close(); d = sqlite3.connect(p); print(d.execute('select count(*), sum(b) from t').fetchone(), d.execute('pragma integrity_check').fetchone())",
  "full text search":
    "import sqlite3; d = sqlite3.connect(':memory:'); d.execute('create virtual table t using fts5(x)'); d.executemany('insert into t values(?)', (('w%d w%d w%d' % (i % 7, i % 11, i % 13),) for i in range(1000))); print(d.execute(\"select count(*) from t where t match 'w3 AND w10'\").fetchone())",
  "text of the world":
    "import unicodedata as u; s = 'Ångström ｆｕｌｌ ﬁ ½ 𝔘 ß'; print([u.normalize(f, s) for f in ('NFC', 'NFD', 'NFKC')], s.casefold(), s.encode('utf-16').hex())",
  dates:
    "import datetime as d; t = d.datetime(2024, 2, 28, 23, 59, tzinfo=d.timezone.utc); print([(t + d.timedelta(days=37 * i)).isoformat() for i in range(6)], t.strftime('%j %U %a'))",
  "compiled at run time":
    "s = 0\nfor i in range(300):\n  n = {}; exec(compile('def f(x): return x * %d + %d' % (i, i * i), 'f', 'exec'), n); s += n['f'](i)\nprint(s)",
  generators:
    "def p():\n  d, q = {}, 2\n  while True:\n    if q not in d: yield q; d[q * q] = [q]\n    else:\n      for x in d.pop(q): d.setdefault(x + q, []).append(x)\n    q += 1\nimport itertools; print(list(itertools.islice(p(), 1200))[-5:])",
  classes:
    "class V:\n  __slots__ = ('x', 'y')\n  def __init__(s, x, y): s.x, s.y = x, y\n  def __add__(s, o): return V(s.x + o.x, s.y - o.y)\nv = V(0, 0)\nfor i in range(20000): v = v + V(i, i / 2)\nprint(v.x, v.y)",
  pickles:
    "import pickle; d = {i: (str(i), [i] * (i % 4), {i: None}) for i in range(2000)}; print(len(pickle.dumps(d, 4)), pickle.loads(pickle.dumps(d)) == d)",
  "files in memory":
    "import mmap, tempfile\nwith tempfile.TemporaryFile() as f:\n  f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 0)\n  for i in range(0, 1 << 20, 4096): m[i:i + 4] = i.to_bytes(4, 'big')\n  m.flush(); f.seek(0); import zlib; print(zlib.crc32(f.read()))",
  sockets:
    "import socket, threading; s = socket.create_server(('127.0.0.1', 0))\ndef serve():\n  c, _ = s.accept()\n  while d := c.recv(9999): c.sendall(d[::-1])\n  c.close()\nt = threading.Thread(target=serve); t.start(); c = socket.create_connection(s.getsockname()); r = b''\nfor i in range(40):\n  c.sendall(b'%03d' % i); r += c.recv(3)\nc.close(); t.join(); print(r)",
  "child processes":
    "import subprocess; p = [subprocess.Popen(['sh', '-c', 'read x; echo $((x * 2))'], stdin=-1, stdout=-1, text=True) for _ in range(8)]; print([x.communicate('%d\\n' % i)[0].strip() for i, x in enumerate(p)])",
  life: "c = {(1, 0), (2, 1), (0, 2), (1, 2), (2, 2), (9, 9), (9, 10), (9, 11)}\nfor _ in range(120):\n  n = {}\n  for x, y in c:\n    for a in (-1, 0, 1):\n      for b in (-1, 0, 1): n[x + a, y + b] = n.get((x + a, y + b), 0) + 1\n  c = {k for k, v in n.items() if v == 3 or (v == 4 and k in c)}\nprint(sorted(c))",
  differences:
    "import difflib; a, b = [str(i % 17) for i in range(300)], [str(i % 19) for i in range(300)]; print(difflib.SequenceMatcher(None, a, b).ratio(), len(list(difflib.unified_diff(a, b))))",
  "trees of XML":
    "import xml.etree.ElementTree as E; r = E.Element('r')\nfor i in range(500): E.SubElement(r, 'n', v=str(i)).text = 'x' * (i % 9)\ns = E.tostring(r); print(len(s), sum(len(n.text or '') for n in E.fromstring(s)))",
}

export const pythonPrograms: Programs = Object.fromEntries(
  Object.entries(sources).map(([name, source]) => [`python: ${name}`, ofFile("python3", "p.py", source)]),
)
