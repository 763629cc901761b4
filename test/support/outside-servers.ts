/**
 * Runs in a network namespace of the tests: on each address given, TCP and UDP on port 7777. TCP says hello and then
 * echoes; UDP answers and prints what it got; to `stay` it goes on answering for three minutes. When it listens it
 * prints `ready`.
 */

const port = 7777
for (const hostname of process.argv.slice(2)) {
  Bun.listen({
    hostname,
    port,
    socket: { open: (socket) => void socket.write("tcp"), data: (socket, bytes) => void socket.write(bytes) },
  })
  await Bun.udpSocket({
    hostname,
    port,
    socket: {
      error() {},
      data(socket, bytes, peerPort, peer) {
        console.log(`${peer} ${bytes.toString()}`)
        const answer = (text: string) => {
          try {
            socket.send(text, peerPort, peer)
          } catch (error) {
            // The client that was answered last may be gone; the kernel reports that at the next answer.
            if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED") throw error
          }
        }
        answer("udp")
        if (bytes.toString() !== "stay") return
        const going = setInterval(() => answer("again"), 200)
        setTimeout(() => clearInterval(going), 180_000)
      },
    },
  })
}
console.log("ready")

export {}
