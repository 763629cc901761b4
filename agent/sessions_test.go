// Sessions over the connection loop: what they outlive, what a client sees, and what they leave behind.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"bhatti/agent/wire"
)

// outcome is all that came of a stream of another operation than exec.
type outcome struct {
	OK       map[string]any
	Error    *wire.Error
	messages []map[string]any
	output   []byte
}

// end reads a stream to its close, giving credit for all that it reads.
func (h *host) end(stream uint32) outcome {
	h.t.Helper()
	var o outcome
	for {
		frame := h.frame(stream)
		switch frame.Type {
		case wire.Data:
			o.output = append(o.output, frame.Payload[1:]...)
			h.window(stream, len(frame.Payload)-1)
		case wire.Message:
			o.messages = append(o.messages, h.decode(frame.Payload))
		case wire.Close:
			if err := json.Unmarshal(frame.Payload, &o); err != nil {
				h.t.Fatal(err)
			}
			return o
		}
	}
}

func (h *host) decode(payload []byte) map[string]any {
	h.t.Helper()
	var message map[string]any
	if err := json.Unmarshal(payload, &message); err != nil {
		h.t.Fatal(err)
	}
	return message
}

// ask opens an operation and waits for its end.
func (h *host) ask(op string, request map[string]any) outcome {
	h.t.Helper()
	return h.end(h.start(op, request))
}

func (h *host) start(op string, request map[string]any) uint32 {
	h.t.Helper()
	if request == nil {
		request = map[string]any{}
	}
	request["op"] = op
	return h.open(string(wire.Encode(request)))
}

// session starts one of the test's own user.
func (h *host) session(script string, more map[string]any) uint32 {
	h.t.Helper()
	request := map[string]any{
		"argv": []string{"sh", "-c", script}, "user": ownName, "cwd": "/", "tty": map[string]int{"rows": 20, "cols": 70},
	}
	for name, value := range more {
		request[name] = value
	}
	return h.start("session_open", request)
}

// see reads a session's output until it holds a text.
func (h *host) see(stream uint32, wanted string) string {
	h.t.Helper()
	seen := ""
	for !strings.Contains(seen, wanted) {
		frame := h.frame(stream)
		switch frame.Type {
		case wire.Data:
			seen += string(frame.Payload[1:])
			h.window(stream, len(frame.Payload)-1)
		case wire.Close:
			h.t.Fatalf("it ended with %s before %q; seen: %q", frame.Payload, wanted, seen)
		}
	}
	return seen
}

// opened returns the id in the first message.
func (h *host) opened(stream uint32) string {
	h.t.Helper()
	frame := h.frame(stream)
	if frame.Type != wire.Message {
		h.t.Fatalf("the first frame has type %d: %s", frame.Type, frame.Payload)
	}
	return h.decode(frame.Payload)["session"].(map[string]any)["id"].(string)
}

func (h *host) sessionStates() string {
	h.t.Helper()
	states := []string{}
	for _, entry := range h.ask("sessions", nil).OK["sessions"].([]any) {
		s := entry.(map[string]any)
		states = append(states, fmt.Sprintf("%v %v %v %v %v", s["id"], s["name"], s["state"], s["exit_code"], s["attached"]))
	}
	return strings.Join(states, "; ")
}

// again connects another host to the same agent; the former connection is lost.
func (h *host) again() *host {
	h.t.Helper()
	h.conn.Close()
	<-h.served
	ours, theirs := socketPair(h.t)
	next := &host{
		t: h.t, agent: h.agent, conn: ours, reader: wire.NewReader(ours),
		served: make(chan error, 1), queued: map[uint32][]wire.Frame{},
	}
	go func() {
		next.served <- next.agent.serve(theirs)
		theirs.Close()
	}()
	h.t.Cleanup(func() { ours.Close() })
	next.greet()
	return next
}

// endSessions kills what a test has started, and waits for it.
func (h *host) endSessions() {
	h.t.Helper()
	for _, entry := range h.ask("sessions", nil).OK["sessions"].([]any) {
		h.ask("session_kill", map[string]any{"session": entry.(map[string]any)["id"]})
	}
	await(h.t, "the sessions have ended", func() bool { return !strings.Contains(h.sessionStates(), "running") })
}

func TestASessionOutlivesItsClientAndItsConnection(t *testing.T) {
	h := personalised(t)
	stream := h.session("echo one; while read line; do echo got $line; done", nil)
	id := h.opened(stream)
	h.data(stream, []byte("first\r"))
	h.see(stream, "got first")
	h.send(wire.Close, stream, nil)
	if o := h.end(stream); o.OK["state"] != "detached" {
		t.Errorf("%+v", o)
	}

	h = h.again()
	if states := h.sessionStates(); states != id+" <nil> running <nil> false" {
		t.Errorf("%q", states)
	}
	stream = h.start("session_attach", map[string]any{"session": id, "tty": map[string]int{"rows": 20, "cols": 70}})
	h.opened(stream)
	h.data(stream, []byte("second\r"))
	if seen := h.see(stream, "got second"); !strings.Contains(seen, "one\r\n") || !strings.Contains(seen, "got first") {
		t.Errorf("the replay is missing: %q", seen)
	}
	h.data(stream, []byte{4})
	o := h.end(stream)
	if o.OK["state"] != "ended" || o.OK["exit_code"] != 0.0 || o.OK["signal"] != nil {
		t.Errorf("%+v", o)
	}
}

func TestAnEndedSessionIsReplayedAndForgotten(t *testing.T) {
	h := personalised(t)
	stream := h.session("echo bye; exit 9", map[string]any{"name": "init"})
	if o := h.end(stream); o.OK["exit_code"] != 9.0 || string(o.output) != "bye\r\n" {
		t.Errorf("%+v", o)
	}
	o := h.ask("session_attach", map[string]any{"session": "init"})
	if o.OK["state"] != "ended" || o.OK["exit_code"] != 9.0 || string(o.output) != "bye\r\n" {
		t.Errorf("%+v", o)
	}
	if states := h.sessionStates(); states != "s1 init ended 9 false" {
		t.Errorf("%q", states)
	}
	if o := h.ask("session_kill", map[string]any{"session": "init"}); o.OK == nil || h.sessionStates() != "" {
		t.Errorf("%+v %q", o, h.sessionStates())
	}
	if o := h.ask("session_attach", map[string]any{"session": "init"}); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
}

func TestTheNewestDetachedSessionIsMeant(t *testing.T) {
	h := personalised(t)
	defer h.endSessions()
	for i := 1; i <= 2; i++ {
		o := h.end(h.session("sleep 100", map[string]any{"attach": false}))
		if o.OK["session"] != "s"+strconv.Itoa(i) {
			t.Fatalf("%+v", o)
		}
	}
	first, second := h.start("session_attach", nil), h.start("session_attach", nil)
	if one, two := h.opened(first), h.opened(second); one != "s2" || two != "s1" {
		t.Errorf("%s, %s", one, two)
	}
	if o := h.ask("session_attach", nil); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
}

func TestAReplayInAnotherWindowLeavesNoScrollRegion(t *testing.T) {
	h := personalised(t)
	stream := h.session(`printf '\033[1;19rready'; read line; printf '\033[1;29rdrawn'`, nil)
	id := h.opened(stream)
	h.see(stream, "ready")
	attach := func(rows int) (uint32, string) {
		tty := map[string]int{"rows": rows, "cols": 70}
		stream := h.start("session_attach", map[string]any{"session": id, "tty": tty})
		h.opened(stream)
		return stream, h.see(stream, "ready")
	}
	if _, seen := attach(20); seen != "\x1b[1;19rready" {
		t.Errorf("in a window of the same size came %q", seen)
	}
	stream, _ = attach(30)
	if seen := h.see(stream, "\x1b8"); seen != "\x1b7\x1b[r\x1b8" {
		t.Errorf("behind the replay came %q", seen)
	}
	h.data(stream, []byte("\r"))
	if ended := string(h.end(stream).output); !strings.HasSuffix(ended, "\x1b[1;29rdrawn") {
		t.Errorf("then came %q", ended)
	}
}

func TestAttachingTakesOver(t *testing.T) {
	h := personalised(t)
	defer h.endSessions()
	first := h.session("stty size; while read x; do stty size; done", nil)
	id := h.opened(first)
	h.see(first, "20 70\r\n")
	second := h.start("session_attach", map[string]any{"session": id, "tty": map[string]int{"rows": 33, "cols": 99}})
	if o := h.end(first); o.OK["state"] != "taken_over" {
		t.Errorf("%+v", o)
	}
	h.opened(second)
	h.data(second, []byte("\r"))
	h.see(second, "33 99\r\n")
	h.send(wire.Message, second, []byte(`{"resize":{"rows":5,"cols":6}}`))
	h.data(second, []byte("\r"))
	h.see(second, "5 6\r\n")
}

func TestASessionWithoutClientIsNeverBlocked(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	h.end(h.session("seq 1 200000; echo done >"+folder+"/proof; echo last; sleep 100", map[string]any{"attach": false}))
	defer h.endSessions()
	await(t, "it has written more than is kept", func() bool {
		_, err := os.Stat(folder + "/proof")
		return err == nil
	})
	stream := h.start("session_attach", nil)
	h.opened(stream)
	seen := h.see(stream, "last\r\n")
	// Output that the kernel's terminal still holds follows the replay.
	const terminalBytes = 65536
	if len(seen) > replayBytes+terminalBytes || len(seen) < replayBytes-replayScanBytes {
		t.Errorf("%d bytes were replayed", len(seen))
	}
	if first, _, _ := strings.Cut(seen, "\r\n"); len(first) != 6 {
		t.Errorf("the replay begins with %q", first)
	}
}

func TestASlowClientStallsOnlyItsSession(t *testing.T) {
	h := personalised(t)
	defer h.endSessions()
	flood := h.session("yes", nil)
	id := h.opened(flood)
	received := 0
	for received < wire.WindowBytes {
		received += len(h.frame(flood).Payload) - 1
	}
	for i := 0; i < 10; i++ {
		if e := h.finish(h.sh("echo quick")); string(e.stdout) != "quick\n" {
			t.Fatalf("%+v", e)
		}
	}
	if received != wire.WindowBytes || len(h.queued[flood]) != 0 {
		t.Errorf("%d bytes came, and %d frames more", received, len(h.queued[flood]))
	}
	found, err := h.agent.processes.find(id)
	if err != nil {
		t.Fatal(err)
	}
	found.mu.Lock()
	behind := found.outputs[0].ring.total - int64(received)
	found.mu.Unlock()
	if behind > backlogBytesMax+chunkBytes {
		t.Errorf("the client is %d bytes behind", behind)
	}
	// Typing goes through although nothing is read: the interrupt reaches yes.
	h.data(flood, []byte{3})
	await(t, "yes has ended", func() bool { return !isAlive(found.child.pid) })
	h.window(flood, wire.WindowBytes)
	if o := h.end(flood); o.OK["signal"] != "INT" {
		t.Errorf("%+v %+v", o.OK, o.Error)
	}
}

func TestTheWholeSessionIsSignalled(t *testing.T) {
	h := personalised(t)
	stream := h.start("session_open", map[string]any{
		"argv": []string{"bash", "-c", "set -m; sleep 101 & echo pid=$!=; wait"}, "user": ownName, "cwd": "/",
	})
	id := h.opened(stream)
	pid, err := strconv.Atoi(strings.Split(h.see(stream, "=\r\n"), "=")[1])
	if err != nil {
		t.Fatal(err)
	}
	if o := h.ask("session_kill", map[string]any{"session": id, "signal": "TERM"}); o.OK == nil {
		t.Errorf("%+v", o)
	}
	if o := h.end(stream); o.OK["state"] != "ended" {
		t.Errorf("%+v", o)
	}
	await(t, "the job has ended", func() bool { return !isAlive(pid) || isZombie(pid) })
}

func TestASignalReachesTheForegroundJob(t *testing.T) {
	h := personalised(t)
	stream := h.start("session_open", map[string]any{
		"argv": []string{"bash", "-c", "set -m; sh -c 'trap \"echo caught; exit 4\" INT; echo up; while :; do sleep 0.01; done'; echo $?"},
		"user": ownName, "cwd": "/",
	})
	h.opened(stream)
	h.see(stream, "up\r\n")
	h.send(wire.Message, stream, []byte(`{"signal":"INT"}`))
	if o := h.end(stream); !strings.Contains(string(o.output), "caught\r\n4\r\n") {
		t.Errorf("%q %+v", o.output, o.OK)
	}
}

func TestWhatCannotBeASessionIsRefused(t *testing.T) {
	h := personalised(t)
	defer h.endSessions()
	h.end(h.session("sleep 100", map[string]any{"attach": false, "name": "taken"}))
	for _, c := range []struct {
		more map[string]any
		code wire.Code
	}{
		{map[string]any{"name": "taken"}, wire.Conflict},
		{map[string]any{"name": "s7"}, wire.Invalid},
		{map[string]any{"name": ""}, wire.Invalid},
		{map[string]any{"name": "a b"}, wire.Invalid},
		{map[string]any{"name": strings.Repeat("a", 64)}, wire.Invalid},
		{map[string]any{"argv": []string{"no-such-program"}}, wire.NotFound},
		{map[string]any{"user": "no-such-user"}, wire.Invalid},
		{map[string]any{"tty": 7}, wire.Invalid},
	} {
		if o := h.end(h.session("true", c.more)); o.Error == nil || o.Error.Code != c.code {
			t.Errorf("%v: %+v", c.more, o)
		}
	}
	for _, request := range []map[string]any{{"session": "taken", "signal": "NOPE"}, {"session": "other"}, {"session": 7}} {
		if o := h.ask("session_kill", request); o.Error == nil {
			t.Errorf("%v: %+v", request, o)
		}
	}
}

func TestSessionsAreBoundedAndLeaveNothing(t *testing.T) {
	h := personalised(t)
	h.end(h.session("true", nil))
	files, routines := openFiles(t), runtime.NumGoroutine()
	for i := 0; i < terminalsRunningMax; i++ {
		if o := h.end(h.session("sleep 100", map[string]any{"attach": false})); o.OK == nil {
			t.Fatalf("session %d: %+v", i, o)
		}
	}
	if o := h.end(h.session("true", nil)); o.Error == nil || o.Error.Code != wire.LimitExceeded {
		t.Errorf("%+v", o)
	}
	h.endSessions()
	await(t, "old ones are forgotten, files and goroutines given back", func() bool {
		return len(h.agent.processes.list()) == sessionsEndedMax && openFiles(t) <= files && runtime.NumGoroutine() <= routines
	})
}

func TestManyAttachmentsLeaveNothing(t *testing.T) {
	h := personalised(t)
	h.end(h.session("cat", map[string]any{"attach": false}))
	defer h.endSessions()
	// All goroutines of the session run when its output has come.
	first := h.start("session_attach", map[string]any{"session": "s1"})
	h.data(first, []byte("x\r"))
	for h.frame(first).Type != wire.Data {
	}
	h.send(wire.Close, first, nil)
	h.end(first)
	files, routines := openFiles(t), runtime.NumGoroutine()
	streams := []uint32{}
	for i := 0; i < 60; i++ {
		stream := h.start("session_attach", map[string]any{"session": "s1"})
		h.data(stream, []byte("x\r"))
		streams = append(streams, stream)
		if i%3 == 0 {
			h.send(wire.Close, stream, nil)
		}
	}
	for _, stream := range streams[:len(streams)-1] {
		o := h.end(stream)
		isEarly := o.Error != nil && o.Error.Code == wire.Unavailable
		if o.OK["state"] != "taken_over" && o.OK["state"] != "detached" && !isEarly {
			t.Errorf("%+v", o)
		}
	}
	h.send(wire.Close, streams[len(streams)-1], nil)
	h.end(streams[len(streams)-1])
	await(t, "files and goroutines are given back", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= routines
	})
}

func TestALongCommandLineFitsTheList(t *testing.T) {
	h := personalised(t)
	defer h.endSessions()
	h.end(h.session("sleep 100 # "+strings.Repeat("ü", 50000), map[string]any{"attach": false}))
	list := wire.Encode(h.ask("sessions", nil).OK["sessions"])
	if len(list) > 8192 || strings.Contains(string(list), `\ufffd`) {
		t.Errorf("%d bytes: %s", len(list), list[:200])
	}
}

func testRing(bytesMax int) *ring {
	return &ring{budget: &budget{max: outputBudgetMax}, bytesMax: bytesMax}
}

func TestTheRingKeepsTheLastBytes(t *testing.T) {
	r := testRing(replayBytes)
	all := []byte{}
	for i := 0; i < 3000; i++ {
		piece := []byte(fmt.Sprintf("line %d %s\n", i, strings.Repeat("€", i%100)))
		r.append(piece)
		all = append(all, piece...)
		start := r.screenStart()
		kept := make([]byte, r.total-start)
		r.copyFrom(start, kept)
		if want := all[len(all)-len(kept):]; string(kept) != string(want) {
			t.Fatalf("after line %d: %d bytes that differ", i, len(kept))
		}
		if start > 0 && all[start-1] != '\n' {
			t.Fatalf("after line %d it begins in the middle", i)
		}
	}
	r.append(make([]byte, 2*replayBytes))
	if r.total-r.first != replayBytes || r.total != int64(len(all)+2*replayBytes) {
		t.Errorf("%d bytes, total %d", r.total-r.first, r.total)
	}
}

func TestAReplayBeginsWithWholeCharactersAndSequences(t *testing.T) {
	for name, c := range map[string]struct{ cut, want string }{
		"a sequence":  {"8;5;1mred\x1b[0mplain", "\x1b[0mplain"},
		"a line":      {"tail\nnext", "next"},
		"a character": {"\x82\xac and nothing else", " and nothing else"},
	} {
		r := testRing(replayBytes)
		text := c.cut + strings.Repeat("x", replayBytes-len(c.cut))
		r.append([]byte("?" + text))
		got := make([]byte, len(c.want))
		r.copyFrom(r.screenStart(), got)
		if string(got) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
