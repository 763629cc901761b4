/** A start command for tests: a server that tells what it has seen before and after it became a clone's. */

/**
 * A server that notes every other millisecond which name, random number and time it sees, until it is a clone's; and a
 * hook that writes down whom it was run for. The seed of its own is made before the template is frozen.
 */
export const start = `
sudo mkdir -p /etc/bhatti/clone.d
sudo tee /etc/bhatti/clone.d/10-note /etc/bhatti/clone.d/20-fail > /dev/null <<'END'
#!/bin/sh
test "\${0##*/}" = 20-fail && { echo no such key; exit 3; }
curl -s localhost:8000/ > /run/answered
echo "$BHATTI_HOSTNAME $BHATTI_MACHINE_ID $BHATTI_ADDRESS $WHO" > /run/noted
END
sudo chmod +x /etc/bhatti/clone.d/*
exec python3 -u -c '
import http.server, json, os, random, socket, threading, time
seed, seen = random.random(), []
def note():
    while not seen or seen[-1][0] == "template":
        one = (socket.gethostname(), os.urandom(4).hex(), time.time())
        # The freeze may come in the middle of a note.
        if one[0] == socket.gethostname():
            seen.append(one)
        time.sleep(0.002)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        early = [one for one in seen if one[0] == "template"]
        said = dict(seed=seed, fresh=os.urandom(8).hex(), early=len(early), last=early[-1:], first=seen[len(early):len(early) + 1])
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(said).encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", 8000), Answer)
threading.Thread(target=note, daemon=True).start()
print("serving")
server.serve_forever()
'`
export const ready = "curl -sf localhost:8000/ > /dev/null"

export type Said = {
  seed: number
  fresh: string
  early: number
  last: unknown
  first: [string, string, number][]
}
