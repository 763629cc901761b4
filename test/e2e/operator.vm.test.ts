/**
 * Settings for a whole host: its certificate, an authority that sandboxes trust, a proxy that they use.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"

const here = mkdtempSync("/tmp/bhatti-operator-")
const local = (name: string) => join(here, name)
let own: Installation

function openssl(...words: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...words], { cwd: here })
  if (exitCode !== 0) throw new Error(`openssl: ${stderr}`)
}

beforeAll(async () => {
  const key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
  openssl("req", "-x509", ...key, "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")
  openssl("req", ...key, "-subj", "/CN=localhost", "-keyout", "leaf.key", "-out", "leaf.csr")
  await Bun.write(local("names"), "subjectAltName=DNS:localhost\n")
  const signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
  openssl("x509", "-req", "-in", "leaf.csr", ...signed, "-out", "leaf.pem")
  const proxy = "guest_proxy: http://10.9.8.7:3128\nguest_no_proxy: [intranet.example]\n"
  own = await install({ config: `guest_ca: ${local("ca.pem")}\n${proxy}` })
  expect((await own.bhatti(["create", "--name", "dev", "--env", "HTTPS_PROXY=none"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(here, { recursive: true })
}, 60_000)

const sh = async (script: string) => (await own.bhatti(["exec", "dev", "--", "bash", "-c", script])).stdout

test("guest_ca: curl, Python and Node in a sandbox trust the authority", async () => {
  for (const name of ["leaf.key", "leaf.pem"]) await own.bhatti(["cp", local(name), "dev:/tmp/"])
  const served = await sh(`
    cd /tmp && echo trusted > page
    python3 - <<'END' &
import http.server, ssl
server = http.server.HTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
END
    url=https://localhost:8443/page
    curl --silent --retry 30 --retry-connrefused --retry-delay 1 $url
    python3 -c "import urllib.request; print(urllib.request.urlopen('$url').read().decode(), end='')"
    node -e "fetch('$url').then((reply) => reply.text()).then((text) => process.stdout.write(text))"
    kill %1`)
  expect(served).toBe("trusted\ntrusted\ntrusted\n")
}, 180_000)

test("guest_proxy: the variables are set, also for sudo, and a sandbox's own win", async () => {
  expect(await sh("echo $http_proxy $https_proxy $HTTPS_PROXY $no_proxy")).toBe(
    "http://10.9.8.7:3128 http://10.9.8.7:3128 none localhost,127.0.0.1,::1,.bhatti,intranet.example\n",
  )
  expect(await sh("sudo sh -c 'echo $http_proxy'")).toBe("http://10.9.8.7:3128\n")
})

test("the doctor finds the daemon of a host that answers by TLS", async () => {
  await own.stopDaemon("SIGTERM")
  const config = join(own.dataDir, "config.yaml")
  const before = await Bun.file(config).text()
  await Bun.write(config, `${before}tls_cert: ${local("leaf.pem")}\ntls_key: ${local("leaf.key")}\n`)
  const port = new URL(own.url).port
  const daemon = Bun.spawn(
    [...["dist/bhatti", "serve", "--data-dir", own.dataDir], "--listen", `127.0.0.1:${port}`],
    { stdout: "ignore", stderr: "ignore" },
  )
  try {
    await Bun.write(config, `${await Bun.file(config).text()}listen: 127.0.0.1:${port}\n`)
    const url = `https://127.0.0.1:${port}/health`
    await until("the daemon answers by TLS", async () => {
      const reply = await fetch(url, { tls: { rejectUnauthorized: false } }).catch(() => undefined)
      return reply?.ok === true
    })
    const doctor = await own.bhatti(["doctor", "--data-dir", own.dataDir, "--json"])
    const checks = JSON.parse(doctor.stdout).checks ?? JSON.parse(doctor.stdout)
    expect(checks.find(({ area }: { area: string }) => area === "port")).toMatchObject({
      status: "ok",
      text: `a bhatti daemon answers at 127.0.0.1:${port}`,
    })
  } finally {
    daemon.kill("SIGTERM")
    await daemon.exited
    await Bun.write(config, before)
    await own.startDaemon()
  }
}, 180_000)
