// A host for the tests: it speaks to the agent's connection loop over a socket pair, without a machine.
// The agent under test cannot change this machine: its identity and its end are pretended.

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// deadline is far above what any step takes, and below the test's own.
const deadline = 20 * time.Second

// TestMain gives programs under test the interrupt back, which a shell ignores for what it runs in the background.
func TestMain(m *testing.M) {
	for _, ignored := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(ignored) {
			signal.Notify(make(chan os.Signal, 1), ignored)
		}
	}
	os.Exit(m.Run())
}

// theReaper is one for the whole test process, as in a guest.
var theReaper = func() *reaper {
	r := newReaper()
	go r.run()
	return r
}()

func testAgent() *agent {
	return &agent{
		version: "test", reaper: theReaper,
		machine: machine{
			personalise: func(request wire.Personalise) (wire.Personalised, error) {
				return wire.Personalised{BootID: "test"}, checkPersonalise(request)
			},
			refresh: func(wire.Refresh) error { return nil },
			store:   func() error { return nil },
			trim:    func(time.Duration) error { return nil },
			scrub:   func(int) error { return nil },
			hold:    func() ([]string, error) { return nil, nil },
			end:     func(int) {},
		},
	}
}

// host is the other end of an agent's connection.
type host struct {
	t      testing.TB
	agent  *agent
	conn   net.Conn
	reader *wire.Reader
	next   uint32
	served chan error
	queued map[uint32][]wire.Frame
}

var hostNonce = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

func hostPreamble(generation uint16) []byte {
	preamble := append([]byte("\xb4BHATTI\n"), hostNonce[:]...)
	return append(preamble, byte(generation>>8), byte(generation), 0, 0)
}

func socketPair(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range ends {
		file := os.NewFile(uintptr(fd), "socket")
		conns[i], err = net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// connect starts an agent and its connection. Nothing is personalised.
func connect(t testing.TB) *host {
	t.Helper()
	ours, theirs := socketPair(t)
	h := &host{
		t: t, agent: testAgent(), conn: ours, reader: wire.NewReader(ours),
		served: make(chan error, 1), queued: map[uint32][]wire.Frame{},
	}
	go func() {
		h.served <- h.agent.serve(theirs)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	h.greet()
	return h
}

// personalised connects to an agent that may run commands.
func personalised(t testing.TB) *host {
	t.Helper()
	h := connect(t)
	h.personalise()
	return h
}

func (h *host) greet() {
	h.t.Helper()
	h.write(hostPreamble(1))
	h.awaitPreamble()
}

func (h *host) awaitPreamble() {
	h.t.Helper()
	var answer [wire.PreambleBytes]byte
	_ = h.conn.SetReadDeadline(time.Now().Add(deadline))
	if _, err := io.ReadFull(h.conn, answer[:]); err != nil {
		h.t.Fatalf("no preamble: %v", err)
	}
	want := wire.AppendGuestPreamble(nil, wire.Preamble{Nonce: hostNonce, Generation: 1})
	if !bytes.Equal(answer[:], want) {
		h.t.Fatalf("the preamble is %x", answer)
	}
}

// awaitPreambleOf drops what a former connection has left on the way.
func (h *host) awaitPreambleOf(generation uint16) {
	h.t.Helper()
	want := wire.AppendGuestPreamble(nil, wire.Preamble{Nonce: hostNonce, Generation: generation})
	var seen []byte
	_ = h.conn.SetReadDeadline(time.Now().Add(deadline))
	for one := make([]byte, 1); !bytes.HasSuffix(seen, want); seen = append(seen, one...) {
		if _, err := io.ReadFull(h.conn, one); err != nil {
			h.t.Fatalf("no preamble in %x: %v", seen, err)
		}
	}
	h.reader.Reset()
}

func (h *host) write(bytes []byte) {
	h.t.Helper()
	_ = h.conn.SetWriteDeadline(time.Now().Add(deadline))
	if _, err := h.conn.Write(bytes); err != nil {
		h.t.Fatalf("write: %v", err)
	}
}

func (h *host) send(kind wire.Type, stream uint32, payload []byte) {
	h.t.Helper()
	h.write(wire.AppendFrame(nil, wire.Frame{Type: kind, Stream: stream, Payload: payload}))
}

func (h *host) open(request string) uint32 {
	h.t.Helper()
	h.next++
	h.send(wire.Open, h.next, []byte(request))
	return h.next
}

func (h *host) data(stream uint32, bytes []byte) {
	h.t.Helper()
	h.send(wire.Data, stream, append([]byte{wire.Stdin}, bytes...))
}

func (h *host) window(stream uint32, count int) {
	h.t.Helper()
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], uint32(count))
	h.send(wire.Window, stream, payload[:])
}

// frame returns the next frame of a stream; those of others wait for their turn.
func (h *host) frame(stream uint32) wire.Frame {
	h.t.Helper()
	for len(h.queued[stream]) == 0 {
		_ = h.conn.SetReadDeadline(time.Now().Add(deadline))
		frame, err := h.reader.Frame()
		if err != nil {
			h.t.Fatalf("no frame for stream %d: %v", stream, err)
		}
		frame.Payload = clone(frame.Payload)
		h.queued[frame.Stream] = append(h.queued[frame.Stream], frame)
	}
	frame := h.queued[stream][0]
	h.queued[stream] = h.queued[stream][1:]
	return frame
}

// ending is all that came of a stream.
type ending struct {
	OK *struct {
		ExitCode int     `json:"exit_code"`
		Signal   *string `json:"signal"`
	}
	Error          *wire.Error
	stdout, stderr []byte
	pid            int
	given          int // credit that came back
}

// finish reads a stream to its close, giving credit for all that it reads.
func (h *host) finish(stream uint32) ending {
	h.t.Helper()
	var e ending
	for {
		frame := h.frame(stream)
		switch frame.Type {
		case wire.Data:
			bytes := frame.Payload[1:]
			if frame.Payload[0] == wire.Stdout {
				e.stdout = append(e.stdout, bytes...)
			} else {
				e.stderr = append(e.stderr, bytes...)
			}
			h.window(stream, len(bytes))
		case wire.Window:
			e.given += int(binary.BigEndian.Uint32(frame.Payload))
		case wire.Message:
			var message wire.Started
			if err := json.Unmarshal(frame.Payload, &message); err != nil {
				h.t.Fatal(err)
			}
			e.pid = message.Started.Pid
		case wire.Close:
			if err := json.Unmarshal(frame.Payload, &e); err != nil {
				h.t.Fatal(err)
			}
			return e
		}
	}
}

func (h *host) personalise() ending {
	h.t.Helper()
	return h.finish(h.open(`{"op":"personalise","entropy":"` +
		`AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","unix_ns":"1","hostname":"dev",` +
		`"machine_id":"0123456789abcdef0123456789abcdef","env":{"SANDBOX":"yes"},"network":null,"grow_disk":false}`))
}

// ownName is the user that the tests run as.
var ownName = func() string {
	who, err := findAccount("/etc", strconv.Itoa(os.Geteuid()))
	if err != nil {
		panic(err)
	}
	return who.name
}()

// exec opens a command of the test's own user.
func (h *host) exec(request map[string]any) uint32 {
	h.t.Helper()
	request["op"] = "exec"
	if request["user"] == nil {
		request["user"] = ownName
	}
	if request["cwd"] == nil {
		request["cwd"] = "/"
	}
	return h.open(string(wire.Encode(request)))
}

func (h *host) sh(script string) uint32 {
	h.t.Helper()
	return h.exec(map[string]any{"argv": []string{"sh", "-c", script}})
}

// await waits for a condition.
func await(t testing.TB, what string, isMet func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !isMet(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func isAlive(pid int) bool { return syscall.Kill(pid, 0) == nil }
