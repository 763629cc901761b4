/** Programs of Node.js, whose engine writes machine code while it runs, and replaces it. */

import { ofFile, type Programs } from "./programs.ts"

const sources: Record<string, string> = {
  "a hot loop": "let s = 0; for (let i = 0; i < 3e6; i++) s = (s * 31 + i) | 0; console.log(s)",
  "floating point":
    "let s = 0; for (let i = 1; i < 4e5; i++) s += Math.sin(i) * Math.sqrt(i) / Math.log(i + 1); console.log(s, Math.fround(s), Math.hypot(3, 4), 0.1 + 0.2)",
  "code that is thrown away":
    "function f(x) { return x.a + 1 } let s = 0; for (let i = 0; i < 2e5; i++) s += f({ a: i }); for (let i = 0; i < 1e4; i++) s += f({ b: 1, a: 0.5 }); for (let i = 0; i < 9; i++) s += f({ a: '1' }).length; console.log(s)",
  recursion: "const f = (n) => (n < 2 ? n : f(n - 1) + f(n - 2)); console.log(f(24))",
  "big integers":
    "let a = 1n, b = 1n; for (let i = 0; i < 3000; i++) [a, b] = [b, a + b]; console.log((a % 10n ** 40n).toString(), BigInt.asUintN(64, a))",
  "typed arrays":
    "const a = new Float64Array(50000), b = new Uint8Array(a.buffer); for (let i = 0; i < a.length; i++) a[i] = Math.cos(i); let h = 0; for (const x of b) h = (h * 33 + x) >>> 0; console.log(h)",
  sieve:
    "const n = 400000, c = new Uint8Array(n); let k = 0; for (let i = 2; i < n; i++) if (!c[i]) { k++; for (let j = i * 2; j < n; j += i) c[j] = 1 } console.log(k)",
  sorting:
    "let x = 1; const a = Array.from({ length: 40000 }, () => (x = (x * 48271) % 2147483647)); a.sort((p, q) => p - q); console.log(a[0], a[20000], a.at(-1))",
  "maps and sets":
    "const m = new Map(); for (let i = 0; i < 60000; i++) m.set(i % 977, (m.get(i % 977) ?? 0) + i); console.log(m.size, [...m.values()].reduce((a, b) => a ^ b), new Set([...m.keys()].map((k) => k % 10)).size)",
  strings:
    "let s = ''; for (let i = 0; i < 20000; i++) s += String.fromCharCode(97 + (i * i) % 26); console.log(s.length, s.split('a').length, s.replaceAll('ab', 'x').length, s.slice(-20).toUpperCase())",
  "regular expressions":
    "const t = Array.from({ length: 5000 }, (_, i) => i * i).join(' '); console.log(t.match(/(\\d)\\1/g).length, t.replace(/(\\d)(\\d)/g, '$2$1').slice(0, 50), /(?<=9)8/.test(t), [...t.matchAll(/\\b1\\d*1\\b/g)].length)",
  json: "const d = Array.from({ length: 4000 }, (_, i) => ({ i, s: 'x'.repeat(i % 7), n: [i / 3] })); const t = JSON.stringify(d); console.log(t.length, JSON.stringify(JSON.parse(t)) === t)",
  WebAssembly:
    "const b = Buffer.from('0061736d010000000106016001' + '7f017f' + '03020100' + '07080104666163740000' + '0a19011700' + '2000410248047f4101052000200041016b10006c0b0b', 'hex'); WebAssembly.instantiate(b).then(({ instance }) => { const f = instance.exports.fact; let s = 0; for (let i = 0; i < 20000; i++) s = (s + f(i % 12)) | 0; console.log(f(10), s) })",
  "functions made of text":
    "let s = 0; for (let i = 0; i < 1500; i++) s += new Function('x', 'return x * ' + i + ' + 1')(i); console.log(s, eval('(() => 6 * 7)()'))",
  generators:
    "function* g() { let a = 0, b = 1; for (;;) { yield a; [a, b] = [b, (a + b) % 1000003] } } let n = 0, s = 0; for (const x of g()) { s += x; if (++n > 30000) break } console.log(s)",
  promises:
    "(async () => { let s = 0; const f = async (i) => { await null; return i }; for (let i = 0; i < 20000; i++) s += await f(i); console.log(s, (await Promise.all([1, 2, 3].map(f))).join()) })()",
  classes:
    "class A { #x = 0; add(n) { this.#x += n; return this } get x() { return this.#x } } class B extends A { add(n) { return super.add(n * 2) } } const b = new B(); for (let i = 0; i < 2e5; i++) b.add(i); console.log(b.x)",
  exceptions:
    "let n = 0; for (let i = 0; i < 30000; i++) try { if (i % 3 === 0) throw new RangeError('x' + i); n++ } catch (e) { n += e.message.length } finally { n-- } console.log(n)",
  proxies:
    "let n = 0; const p = new Proxy({}, { get: (_, k) => (n++, k.length) }); let s = 0; for (let i = 0; i < 30000; i++) s += p['k' + (i % 100)]; console.log(n, s)",
  cryptography:
    "const c = require('crypto'); const h = c.createHash('sha256'); for (let i = 0; i < 500; i++) h.update('block ' + i); console.log(h.digest('hex'), c.pbkdf2Sync('p', 's', 500, 16, 'sha1').toString('hex'), c.createHmac('md5', 'k').update('x').digest('hex'))",
  compression:
    "const z = require('zlib'); const d = Buffer.from(Array.from({ length: 50000 }, (_, i) => (i * i) % 251)); const c = z.deflateSync(d); console.log(c.length, z.inflateSync(c).equals(d), z.brotliDecompressSync(z.brotliCompressSync(d.subarray(0, 9000))).length)",
  "worker threads":
    "const { Worker, isMainThread, parentPort, workerData } = require('worker_threads'); if (isMainThread) Promise.all([1, 2, 3].map((n) => new Promise((r) => new Worker(__filename, { workerData: n }).on('message', r)))).then((a) => console.log(a.join())); else { let s = 0; for (let i = 0; i < 3e5; i++) s = (s + i * workerData) | 0; parentPort.postMessage(s) }",
  "shared memory":
    "const { Worker, isMainThread, workerData } = require('worker_threads'); if (isMainThread) { const b = new Int32Array(new SharedArrayBuffer(8)); Promise.all([1, 2, 3].map(() => new Promise((r) => new Worker(__filename, { workerData: b }).on('exit', r)))).then(() => console.log(b[0])) } else for (let i = 0; i < 20000; i++) Atomics.add(workerData, 0, 1)",
  streams:
    "const { Readable } = require('stream'); (async () => { let h = 0; for await (const c of Readable.from(Array.from({ length: 3000 }, (_, i) => 'c' + i))) for (const x of c) h = (h * 31 + x.charCodeAt(0)) | 0; console.log(h) })()",
  "dates and texts":
    "console.log(new Date(1700000000000).toISOString(), new Intl.NumberFormat('de').format(1234567.891), 'straße'.toUpperCase(), ['ä', 'a', 'z'].sort(new Intl.Collator('de').compare).join())",
  collection:
    "let k = []; for (let i = 0; i < 300000; i++) { const o = { i, n: [i] }; if (i % 1000 === 0) k.push(o) } console.log(k.length, k.reduce((s, o) => s + o.n[0], 0))",
}

export const nodePrograms: Programs = Object.fromEntries(
  Object.entries(sources).map(([name, source]) => [`node: ${name}`, ofFile("node", "p.js", source)]),
)
