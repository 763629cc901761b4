// Tests of notices that the agent sends unasked, and of reading a session without attaching.

package main

import (
	"fmt"
	"strings"
	"testing"

	"bhatti/agent/wire"
)

func (h *host) namedSession(name, script string) {
	h.t.Helper()
	o := h.ask("session_open", map[string]any{
		"argv": []string{"sh", "-c", script}, "user": ownName, "cwd": "/", "name": name, "attach": false,
	})
	if o.OK == nil {
		h.t.Fatalf("%+v", o.Error)
	}
}

func TestTheEndOfANamedSessionIsToldOnceAlsoToWhoComesLater(t *testing.T) {
	h := personalised(t)
	h.namedSession("early", "exit 3")
	await(t, "it has ended", func() bool {
		h.agent.notices.mu.Lock()
		defer h.agent.notices.mu.Unlock()
		return len(h.agent.notices.waiting) == 1
	})
	stream := h.start("watch", nil)
	h.namedSession("late", "kill -9 $$")
	for _, want := range []string{`"name":"early","exit_code":3,"signal":null`, `"name":"late","exit_code":137,"signal":"KILL"`} {
		if frame := h.frame(stream); frame.Type != wire.Message || !strings.Contains(string(frame.Payload), want) {
			t.Errorf("%d %s, not %s", frame.Type, frame.Payload, want)
		}
	}
	next := h.start("watch", nil)
	if o := h.end(stream); o.OK == nil || len(o.messages) > 0 {
		t.Errorf("the first is not ended by the second: %+v", o)
	}
	// A frozen machine has no open streams; this one is no hindrance.
	if o := h.ask("quiesce", nil); o.OK == nil {
		t.Errorf("%+v", o.Error)
	}
	if o := h.end(next); o.OK == nil || len(o.messages) > 0 {
		t.Errorf("%+v", o)
	}
}

func TestKillsForMemoryAreToldAndLeaveRoomForOtherNotices(t *testing.T) {
	h := personalised(t)
	h.namedSession("early", "exit 3")
	await(t, "it has ended", func() bool {
		h.agent.notices.mu.Lock()
		defer h.agent.notices.mu.Unlock()
		return len(h.agent.notices.waiting) == 1
	})
	for pid := 1; pid <= 3*noticesWaitingMax; pid++ {
		h.agent.notices.tell(wire.MemoryNotice{MemoryKill: wire.MemoryKill{Pid: pid, Name: "python3", AnonKib: 421888}})
	}
	stream := h.start("watch", nil)
	if frame := h.frame(stream); !strings.Contains(string(frame.Payload), `"name":"early"`) {
		t.Errorf("%s", frame.Payload)
	}
	for pid := 2*noticesWaitingMax + 1; pid <= 3*noticesWaitingMax; pid++ {
		want := fmt.Sprintf(`{"memory_kill":{"pid":%d,"name":"python3",`, pid)
		if frame := h.frame(stream); !strings.HasPrefix(string(frame.Payload), want) {
			t.Errorf("%s, not %s", frame.Payload, want)
		}
	}
}

func TestASessionIsReadWithoutBeingAttachedTo(t *testing.T) {
	h := personalised(t)
	h.namedSession("init", "echo shown; exec sleep 100")
	read := func() string { return string(h.ask("session_read", map[string]any{"session": "init"}).output) }
	await(t, "it has shown something", func() bool { return read() == "shown\r\n" })
	attached := h.start("session_attach", map[string]any{"session": "init"})
	if frame := h.frame(attached); frame.Type != wire.Message {
		t.Fatalf("%d %s", frame.Type, frame.Payload)
	}
	read()
	h.ask("session_kill", map[string]any{"session": "init"})
	if o := h.end(attached); o.OK["state"] != "ended" {
		t.Errorf("its client was sent away: %+v", o)
	}
	if got := read(); got != "shown\r\n" {
		t.Errorf("after its end: %q", got)
	}
	if o := h.ask("session_read", map[string]any{"session": "none"}); o.Error == nil || o.Error.Code != wire.NotFound {
		t.Errorf("%+v", o)
	}
}
