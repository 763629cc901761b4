// Commands with a terminal.

package main

import (
	"strings"
	"testing"

	"bhatti/agent/wire"
)

// terminalCommand is a shell script with a terminal of 24 rows and 80 columns.
func (h *host) terminalCommand(script string, hasInput bool) uint32 {
	h.t.Helper()
	return h.exec(map[string]any{
		"argv": []string{"sh", "-c", script}, "stdin": hasInput,
		"tty": map[string]any{"rows": 24, "cols": 80, "term": "vt100"},
	})
}

// readUntil reads a stream's output until it holds a text.
func (h *host) readUntil(stream uint32, text string) string {
	h.t.Helper()
	var seen strings.Builder
	for !strings.Contains(seen.String(), text) {
		frame := h.frame(stream)
		if frame.Type == wire.Close {
			h.t.Fatalf("it ended with %s after %q", frame.Payload, seen.String())
		}
		if frame.Type == wire.Data {
			seen.Write(frame.Payload[1:])
		}
	}
	return seen.String()
}

func TestATerminalIsTheCommandsOwn(t *testing.T) {
	h := personalised(t)
	stream := h.terminalCommand(`test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; echo $TERM; tty`, true)
	e := h.finish(stream)
	if e.OK == nil || !strings.HasPrefix(string(e.stdout), "yes\r\n24 80\r\nvt100\r\n/dev/pts/") {
		t.Errorf("%+v %q", e, e.stdout)
	}
}

func TestATerminalIsResized(t *testing.T) {
	h := personalised(t)
	stream := h.terminalCommand(`trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done`, true)
	h.readUntil(stream, "ready")
	h.send(wire.Message, stream, []byte(`{"resize":{"rows":50,"cols":132}}`))
	h.readUntil(stream, "50 132")
	h.finish(stream)
}

func TestControlCharactersAreSignals(t *testing.T) {
	h := personalised(t)
	// Without the trap a shell may lose the signal between fork and exec.
	stream := h.terminalCommand(`trap 'exit 3' INT; echo ready; while :; do sleep 0.01; done`, true)
	h.readUntil(stream, "ready")
	h.data(stream, []byte{3})
	if e := h.finish(stream); e.OK == nil || e.OK.ExitCode != 3 {
		t.Errorf("%+v", e.OK)
	}
}

func TestTheEndOfInputEndsATerminalsReader(t *testing.T) {
	h := personalised(t)
	stream := h.terminalCommand("cat; echo over", true)
	h.data(stream, []byte("hello\n"))
	h.readUntil(stream, "hello\r\nhello")
	h.send(wire.End, stream, []byte{wire.Stdin})
	if e := h.finish(stream); !strings.Contains(string(e.stdout), "over") {
		t.Errorf("%q", e.stdout)
	}
	if e := h.finish(h.terminalCommand("cat; echo over", false)); !strings.Contains(string(e.stdout), "over") {
		t.Errorf("without input: %q", e.stdout)
	}
}

func TestATerminalsLastOutputIsNotLost(t *testing.T) {
	h := personalised(t)
	for i := 0; i < 30; i++ {
		if e := h.finish(h.terminalCommand("seq 1 8000", true)); !strings.HasSuffix(string(e.stdout), "\n8000\r\n") {
			t.Fatalf("round %d: %d bytes", i, len(e.stdout))
		}
	}
}

func TestATerminalSurvivesALeaderWithoutFiles(t *testing.T) {
	h := personalised(t)
	e := h.finish(h.terminalCommand("exec <&- >&- 2>&-; sleep 0.1; exec >/dev/tty; echo back", true))
	if !strings.Contains(string(e.stdout), "back") {
		t.Errorf("%+v %q", e.OK, e.stdout)
	}
}
