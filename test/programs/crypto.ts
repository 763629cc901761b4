/** Cryptography: its code has its own vector instructions, and a wrong bit changes everything. */

import type { Programs } from "./programs.ts"

const input = "seq 1 20000"
const [key, iv] = [
  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
  "0f0e0d0c0b0a09080706050403020100",
]

const digests = ["sha256", "sha512", "sha3-256", "md5", "blake2b512", "shake128", "sm3"]
const ciphers = {
  "aes-128-cbc": 32,
  "aes-256-ctr": 64,
  "aes-256-cbc": 64,
  "aes-128-ofb": 32,
  chacha20: 64,
  "camellia-256-cbc": 64,
  "aria-128-ctr": 32,
  "sm4-ctr": 32,
}

export const cryptoPrograms: Programs = {
  ...Object.fromEntries(digests.map((name) => [`digest ${name}`, `${input} | openssl dgst -${name}`])),
  ...Object.fromEntries(
    Object.entries(ciphers).map(([name, digits]) => [
      `cipher ${name}`,
      `${input} | openssl enc -${name} -K ${key.slice(0, digits)} -iv ${iv} | tee /tmp/.cipher | sha256sum
openssl enc -d -${name} -K ${key.slice(0, digits)} -iv ${iv} < /tmp/.cipher | sha256sum`,
    ]),
  ),
  hmac: `${input} | openssl dgst -sha256 -hmac secret; ${input} | openssl dgst -sha512 -mac HMAC -macopt hexkey:${key}`,
  "key derivation": `openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:secret -kdfopt salt:salt -kdfopt iter:2000 PBKDF2; openssl kdf -keylen 32 -kdfopt pass:secret -kdfopt salt:salt -kdfopt n:1024 -kdfopt r:8 -kdfopt p:1 SCRYPT`,
  "prime numbers": `openssl prime 170141183460469231731687303715884105727; openssl prime 170141183460469231731687303715884105729; openssl prime -hex FFFFFFFFFFFFFFC5`,
  "signature of Ed25519": `cd $(mktemp -d); printf '302e020100300506032b657004220420${key}' | python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))' > k; openssl pkey -inform DER -in k -out k.pem; seq 1 99 > m; openssl pkeyutl -sign -inkey k.pem -rawin -in m -out s; sha256sum < s; openssl pkey -in k.pem -pubout -out p.pem; openssl pkeyutl -verify -pubin -inkey p.pem -rawin -in m -sigfile s`,
  "signature of RSA": `cd $(mktemp -d); openssl genrsa -out k 1024 2>/dev/null; seq 1 99 > m; openssl dgst -sha256 -sign k -out s m; openssl rsa -in k -pubout -out p 2>/dev/null; openssl dgst -sha256 -verify p -signature s m; echo x >> m; openssl dgst -sha256 -verify p -signature s m 2>/dev/null || echo refused`,
  "signature of a curve": `cd $(mktemp -d); openssl ecparam -name prime256v1 -genkey -noout -out k; seq 1 99 > m; openssl dgst -sha256 -sign k -out s m; openssl ec -in k -pubout -out p 2>/dev/null; openssl dgst -sha256 -verify p -signature s m`,
  "agreement on a key": `cd $(mktemp -d); for n in a b; do openssl genpkey -algorithm X25519 -out $n; openssl pkey -in $n -pubout -out $n.pub; done; openssl pkeyutl -derive -inkey a -peerkey b.pub > one; openssl pkeyutl -derive -inkey b -peerkey a.pub | cmp - one && wc -c < one`,
  "a certificate": `cd $(mktemp -d); openssl req -x509 -newkey rsa:1024 -nodes -keyout k -out c -subj /CN=test -days 9 2>/dev/null; openssl verify -CAfile c c; openssl x509 -in c -noout -subject`,
  "sums of the coreutils": `for s in sha1sum sha224sum sha256sum sha384sum sha512sum md5sum b2sum cksum sum; do ${input} | $s; done`,
  "the kernel's own digests": `python3 -c "
import socket
for name in ('sha1', 'sha256', 'sha512', 'md5'):
    try:
        s = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); s.bind(('hash', name)); o = s.accept()[0]
        o.sendall(b'abc' * 5000); print(name, o.recv(64).hex())
    except OSError as e: print(name, e.errno)"`,
}
