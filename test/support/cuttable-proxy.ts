/** A TCP proxy whose connections a test can cut. */

import { createConnection, createServer, type Server, type Socket } from "node:net"

export class CuttableProxy implements AsyncDisposable {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Bytes that came from the server over the connections that are open. */
  bytesDown = 0

  private constructor(port: number) {
    this.#server = createServer((client) => {
      const server = createConnection({ host: "127.0.0.1", port })
      for (const [one, other] of [
        [client, server],
        [server, client],
      ] as const) {
        this.#sockets.add(one)
        one.on("error", () => other.destroy())
        one.on("close", () => {
          this.#sockets.delete(one)
          other.destroy()
        })
        one.pipe(other)
      }
      server.on("data", (bytes) => {
        this.bytesDown += bytes.length
      })
    })
  }

  static async to(port: number): Promise<CuttableProxy> {
    const proxy = new CuttableProxy(port)
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve))
    return proxy
  }

  get url(): string {
    const address = this.#server.address()
    if (address === null || typeof address === "string") throw new Error("the proxy does not listen")
    return `http://127.0.0.1:${address.port}`
  }

  cut(): void {
    this.bytesDown = 0
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
