// A connection: preambles, order, broken rules, bounds, and what becomes of commands when it ends.

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"bhatti/agent/wire"
)

func TestPingAnswers(t *testing.T) {
	h := connect(t)
	h.send(wire.Open, 1, []byte(`{"op":"ping"}`))
	want := `{"ok":{"agent":"lohar","version":"test","personalised":false,"boot_failures":[]}}`
	if frame := h.frame(1); frame.Type != wire.Close || string(frame.Payload) != want {
		t.Errorf("%d %s", frame.Type, frame.Payload)
	}
}

func TestFramesBehindThePreambleAreServed(t *testing.T) {
	ours, theirs := socketPair(t)
	defer ours.Close()
	go testAgent().serve(theirs)
	ping := wire.AppendFrame(nil, wire.Frame{Type: wire.Open, Stream: 1, Payload: []byte(`{"op":"ping"}`)})
	h := &host{t: t, conn: ours, reader: wire.NewReader(ours), queued: map[uint32][]wire.Frame{}}
	h.write(append(append([]byte("left over from somebody"), hostPreamble(1)...), ping...))
	h.awaitPreamble()
	if frame := h.frame(1); frame.Type != wire.Close {
		t.Errorf("%+v", frame)
	}
}

func TestTheLowerGenerationIsSpoken(t *testing.T) {
	ours, theirs := socketPair(t)
	defer ours.Close()
	go testAgent().serve(theirs)
	h := &host{t: t, conn: ours}
	h.write(hostPreamble(7))
	h.awaitPreamble()
}

func TestBadRequestsAreAnsweredAndTheConnectionLives(t *testing.T) {
	h := connect(t)
	for request, code := range map[string]wire.Code{
		"": wire.Invalid, "{": wire.Invalid, "[]": wire.Invalid, "{}": wire.Invalid,
		`{"op":"fly"}`:              wire.Unavailable,
		`{"op":"exec","argv":"ls"}`: wire.Conflict,
		`{"op":"personalise"}`:      wire.Invalid,
	} {
		if e := h.finish(h.open(request)); e.Error == nil || e.Error.Code != code {
			t.Errorf("%s: %+v", request, e.Error)
		}
	}
	h.personalise()
	if e := h.finish(h.open(`{"op":"exec","argv":"ls"}`)); e.Error == nil || e.Error.Code != wire.Invalid {
		t.Errorf("%+v", e.Error)
	}
}

func TestExecIsRefusedUntilPersonalised(t *testing.T) {
	h := connect(t)
	if e := h.finish(h.sh("true")); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("%+v", e)
	}
	personalise := h.personalise()
	if e := h.finish(h.sh("true")); e.OK == nil {
		t.Errorf("%+v after %+v", e, personalise)
	}
}

func TestAFailedPersonaliseLeavesTheGuestUnusable(t *testing.T) {
	h := personalised(t)
	h.agent.machine.personalise = func(wire.Personalise) (wire.Personalised, error) {
		return wire.Personalised{}, errors.New("no network card")
	}
	if e := h.personalise(); e.Error == nil || e.Error.Code != wire.Internal {
		t.Errorf("%+v", e)
	}
	if e := h.finish(h.sh("true")); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("%+v", e)
	}
}

func TestPersonaliseIsFinishedBeforeTheNextOperationStarts(t *testing.T) {
	h := connect(t)
	h.agent.machine.personalise = func(wire.Personalise) (wire.Personalised, error) {
		time.Sleep(50 * time.Millisecond)
		return wire.Personalised{}, nil
	}
	var both []byte
	both = wire.AppendFrame(both, wire.Frame{Type: wire.Open, Stream: 1, Payload: []byte(`{"op":"personalise"}`)})
	both = wire.AppendFrame(both, wire.Frame{
		Type: wire.Open, Stream: 2, Payload: []byte(`{"op":"exec","argv":["true"],"cwd":"/","user":"` + ownName + `"}`),
	})
	h.write(both)
	if e := h.finish(2); e.OK == nil || e.OK.ExitCode != 0 {
		t.Errorf("%+v", e)
	}
}

func TestQuiesceIsRefusedWhileACommandRuns(t *testing.T) {
	h := personalised(t)
	sleeper := h.sh("sleep 100")
	h.frame(sleeper)
	if e := h.finish(h.open(`{"op":"quiesce"}`)); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("%+v", e)
	}
	h.send(wire.Close, sleeper, nil)
	h.finish(sleeper)
	quiesce := h.open(`{"op":"quiesce"}`)
	if frame := h.frame(quiesce); string(frame.Payload) != `{"ok":{}}` {
		t.Errorf("%s", frame.Payload)
	}
}

func TestFreeMemoryIsOverwrittenWhenTheHostSaysHowMuchWasNeverTouched(t *testing.T) {
	h := personalised(t)
	scrubbed := make(chan int, 4)
	h.agent.machine.scrub = func(untouchedMib int) error {
		scrubbed <- untouchedMib
		return nil
	}
	for _, request := range []string{
		`{"op":"trim","budget_ms":250}`, `{"op":"trim","budget_ms":250,"untouched_mib":0}`,
		`{"op":"quiesce","untouched_mib":300}`,
	} {
		h.frame(h.open(request))
	}
	h.greet()
	h.frame(h.open(`{"op":"quiesce"}`))
	close(scrubbed)
	var got []int
	for untouchedMib := range scrubbed {
		got = append(got, untouchedMib)
	}
	if len(got) != 2 || got[0] != 0 || got[1] != 300 {
		t.Errorf("%v", got)
	}
}

func TestAfterQuiesceOnlyAPreambleIsHeard(t *testing.T) {
	h := personalised(t)
	h.frame(h.open(`{"op":"quiesce"}`))
	h.open(`{"op":"ping"}`)
	h.greet()
	if e := h.finish(h.sh("true")); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("the guest kept its identity: %+v", e)
	}
	h.personalise()
	if e := h.finish(h.sh("true")); e.OK == nil {
		t.Errorf("%+v", e)
	}
}

func TestRefreshIsForAGuestThatHasAnIdentity(t *testing.T) {
	refresh := func(h *host) ending {
		entropy := base64.StdEncoding.EncodeToString(make([]byte, 32))
		return h.finish(h.open(`{"op":"refresh","entropy":"` + entropy + `","unix_ns":"1700000000000000000"}`))
	}
	h := connect(t)
	if e := refresh(h); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("%+v", e)
	}
	if e := h.finish(h.sh("true")); e.Error == nil || e.Error.Code != wire.Conflict {
		t.Errorf("a command ran in a guest that is nobody: %+v", e)
	}
	h.personalise()
	h.frame(h.open(`{"op":"quiesce"}`))
	h.greet()
	if e := refresh(h); e.OK == nil {
		t.Errorf("%+v", e)
	}
	if e := h.finish(h.sh("true")); e.OK == nil {
		t.Errorf("%+v", e)
	}
}

func TestANewPreambleKillsTheFormerCommands(t *testing.T) {
	h := personalised(t)
	stream := h.sh("sleep 100 & sleep 100")
	pid := h.startedPid(stream)
	h.write(hostPreamble(1))
	h.reader.Reset()
	h.awaitPreamble()
	await(t, "the command is killed", func() bool { return !isAlive(pid) })
	if e := h.finish(h.sh("true")); e.OK == nil {
		t.Errorf("%+v", e)
	}
}

func TestALostConnectionKillsItsCommands(t *testing.T) {
	h := personalised(t)
	pid := h.startedPid(h.sh("sleep 100"))
	h.conn.Close()
	await(t, "the command is killed", func() bool { return !isAlive(pid) })
	if err := <-h.served; !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestBrokenRulesEndTheConnection(t *testing.T) {
	frame := func(kind wire.Type, payload []byte) []byte {
		return wire.AppendFrame(nil, wire.Frame{Type: kind, Stream: 2, Payload: payload})
	}
	tooMuch := bytes.Repeat(frame(wire.Data, make([]byte, wire.DataBytesMax+1)), wire.WindowBytes/wire.DataBytesMax+1)
	for name, rule := range map[string][]byte{
		"bad header":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"stream opened twice":     frame(wire.Open, []byte(`{"op":"ping"}`)),
		"more credit than window": frame(wire.Window, binary.BigEndian.AppendUint32(nil, 1)),
		"more data than window":   tooMuch,
		"data on channel 3":       frame(wire.Data, []byte("\x03x")),
		"end of channel 3":        frame(wire.End, []byte{3}),
	} {
		h := personalised(t)
		pid := h.startedPid(h.sh("exec sleep 100"))
		h.write(rule)
		await(t, name, func() bool { return !isAlive(pid) })
		h.reader.Reset()
		h.write(make([]byte, wire.FrameBytesMax))
		h.greet()
	}
}

func TestFramesForUnknownStreamsAreDropped(t *testing.T) {
	h := connect(t)
	h.send(wire.Data, 77, []byte("\x00lost"))
	h.send(wire.Message, 77, []byte(`{"signal":"KILL"}`))
	h.send(wire.End, 77, []byte{0})
	h.send(wire.Close, 77, nil)
	h.window(77, 1000000)
	if frame := h.frame(h.open(`{"op":"ping"}`)); frame.Type != wire.Close {
		t.Errorf("%+v", frame)
	}
}

func TestTooManyStreamsAreRefused(t *testing.T) {
	h := personalised(t)
	var streams []uint32
	for i := 0; i < wire.StreamsMax; i++ {
		streams = append(streams, h.exec(map[string]any{"argv": []string{"cat"}, "stdin": true}))
	}
	if e := h.finish(h.open(`{"op":"ping"}`)); e.Error == nil || e.Error.Code != wire.LimitExceeded {
		t.Errorf("%+v", e)
	}
	for _, stream := range streams {
		h.data(stream, []byte(fmt.Sprintf("%d", stream)))
		h.send(wire.End, stream, []byte{wire.Stdin})
	}
	for _, stream := range streams {
		if e := h.finish(stream); e.OK == nil || string(e.stdout) != fmt.Sprintf("%d", stream) {
			t.Fatalf("stream %d: %+v %s", stream, e, e.stdout)
		}
	}
}

func TestClosingWhatHasNotStartedIsAnswered(t *testing.T) {
	h := connect(t)
	release := make(chan struct{})
	h.agent.machine.personalise = func(wire.Personalise) (wire.Personalised, error) {
		<-release
		return wire.Personalised{}, nil
	}
	h.open(`{"op":"personalise"}`)
	stream := h.sh("echo should not run")
	h.send(wire.Close, stream, nil)
	// The ping's answer shows that the close was read, though not before the personalise is over.
	ping := h.open(`{"op":"ping"}`)
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	h.frame(ping)
	if e := h.finish(stream); e.Error == nil || e.Error.Code != wire.Unavailable || len(e.stdout) > 0 {
		t.Errorf("%+v", e)
	}
}

func TestShutdownIsAnsweredFirst(t *testing.T) {
	h := connect(t)
	isOff := make(chan struct{})
	h.agent.machine.end = func(int) { close(isOff) }
	if frame := h.frame(h.open(`{"op":"shutdown"}`)); string(frame.Payload) != `{"ok":{}}` {
		t.Errorf("%s", frame.Payload)
	}
	select {
	case <-isOff:
	case <-time.After(deadline):
		t.Error("the machine stays on")
	}
}

func TestAStalledHostDoesNotKeepTheNextOneOut(t *testing.T) {
	h := personalised(t)
	for i := 0; i < 8; i++ {
		h.sh("yes")
	}
	// The socket fills up unread, so the agent's writers wait. A new preamble must get through.
	time.Sleep(200 * time.Millisecond)
	h.write(hostPreamble(1))
	want := wire.AppendGuestPreamble(nil, wire.Preamble{Nonce: hostNonce, Generation: 1})
	var seen strings.Builder
	buffer := make([]byte, 65536)
	await(t, "the preamble", func() bool {
		_ = h.conn.SetReadDeadline(time.Now().Add(deadline))
		n, err := h.conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(buffer[:n])
		return strings.Contains(seen.String(), string(want))
	})
}

// startedPid waits until a command runs.
func (h *host) startedPid(stream uint32) int {
	h.t.Helper()
	frame := h.frame(stream)
	if frame.Type != wire.Message {
		h.t.Fatalf("the command did not start: %s", frame.Payload)
	}
	var pid int
	if _, err := fmt.Sscanf(string(frame.Payload), `{"started":{"pid":%d}}`, &pid); err != nil {
		h.t.Fatal(err)
	}
	return pid
}
