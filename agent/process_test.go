// Processes over the connection loop: what they outlive, what each client sees, what is kept, and how they end.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"bhatti/agent/wire"
)

// startProcess requests a process of the test's own user.
func (h *host) startProcess(script string, more map[string]any) uint32 {
	h.t.Helper()
	request := map[string]any{"argv": []string{"sh", "-c", script}, "user": ownName, "cwd": "/"}
	for name, value := range more {
		request[name] = value
	}
	return h.start("process_start", request)
}

// first returns the first message to a client.
func (h *host) first(stream uint32) wire.ProcessMessage {
	h.t.Helper()
	frame := h.frame(stream)
	var message wire.ProcessMessage
	if frame.Type != wire.Message || json.Unmarshal(frame.Payload, &message) != nil {
		h.t.Fatalf("the first frame has type %d: %s", frame.Type, frame.Payload)
	}
	return message
}

// keep starts a process without a client and returns its id.
func (h *host) keep(script string, more map[string]any) string {
	h.t.Helper()
	request := map[string]any{"attach": false, "on_disconnect": "keep", "retain_ms": 60000}
	for name, value := range more {
		request[name] = value
	}
	o := h.end(h.startProcess(script, request))
	if o.OK == nil {
		h.t.Fatalf("%+v", o.Error)
	}
	return o.OK["process"].(map[string]any)["id"].(string)
}

func (h *host) attach(id string, more map[string]any) uint32 {
	h.t.Helper()
	request := map[string]any{"process": id}
	for name, value := range more {
		request[name] = value
	}
	return h.start("process_attach", request)
}

func (h *host) process(id string) map[string]any {
	h.t.Helper()
	o := h.ask("process_get", map[string]any{"process": id})
	if o.OK == nil {
		h.t.Fatalf("%+v", o.Error)
	}
	return o.OK["process"].(map[string]any)
}

// wait returns the record of a process after its end.
func (h *host) wait(id string) map[string]any {
	h.t.Helper()
	o := h.ask("process_wait", map[string]any{"process": id})
	if o.OK == nil {
		h.t.Fatalf("%+v", o.Error)
	}
	return o.OK["process"].(map[string]any)
}

// endOf writes the end of a process as text.
func endOf(ended any) string {
	e, _ := ended.(map[string]any)
	return fmt.Sprint(e["exit_code"], " ", e["signal"], " ", e["reason"], " ", e["by"])
}

// killAll kills what a test has started.
func (h *host) killAll() {
	h.t.Helper()
	for _, p := range h.agent.processes.list() {
		if !p.hasEnded() {
			h.ask("process_signal", map[string]any{"process": p.id, "signal": "KILL"})
			<-p.finished
		}
	}
}

func TestAProcessTellsItsRecordItsOutputAndItsEnd(t *testing.T) {
	h := personalised(t)
	stream := h.startProcess("cat; echo err >&2; exit 7", map[string]any{"stdin": true, "name": "job"})
	first := h.first(stream)
	p := first.Process
	if !first.IsNew || p.ID != "p1" || *p.Name != "job" || p.Pid < 2 || p.State != "running" || !p.Driven || !p.InputOpen ||
		p.HasTerminal || p.User != ownName || p.Cwd != "/" || p.OnDisconnect != "kill" || strings.Join(p.Argv[:2], " ") != "sh -c" {
		t.Errorf("%+v", first)
	}
	h.data(stream, []byte("out"))
	h.send(wire.End, stream, []byte{wire.Stdin})
	o := h.end(stream)
	if o.OK["state"] != "ended" || endOf(o.OK["ended"]) != "7 <nil> exited <nil>" || !strings.Contains(string(o.output), "out") ||
		!strings.Contains(string(o.output), "err\n") {
		t.Errorf("%+v %q", o, o.output)
	}
	await(t, "it is forgotten", func() bool {
		o := h.ask("process_get", map[string]any{"process": "job"})
		return o.Error != nil && o.Error.Code == wire.NotFound
	})
}

func TestAnEndedProcessIsKeptForItsTime(t *testing.T) {
	h := personalised(t)
	id := h.keep("echo out; echo err >&2; exit 3", nil)
	p := h.wait(id)
	if p["state"] != "ended" || endOf(p["ended"]) != "3 <nil> exited <nil>" || p["driven"] != false || p["ended_unix_ms"] == nil {
		t.Errorf("%+v", p)
	}
	for _, mode := range []string{"watch", "drive"} {
		stream := h.attach(id, map[string]any{"mode": mode, "from": map[string]int{"stdout": 2, "stderr": 0}})
		if first := h.first(stream); first.IsNew || first.From != (wire.Offsets{Stdout: 2}) {
			t.Errorf("%+v", first)
		}
		if o := h.end(stream); o.OK["state"] != "ended" || len(o.output) != len("t\nerr\n") {
			t.Errorf("%s: %+v %q", mode, o, o.output)
		}
	}
	short := h.keep("true", map[string]any{"retain_ms": 50})
	h.wait(short)
	await(t, "it is forgotten", func() bool { return h.ask("process_get", map[string]any{"process": short}).Error != nil })
	if o := h.ask("process_forget", map[string]any{"process": id}); o.OK == nil {
		t.Errorf("%+v", o)
	}
	if list := h.ask("process_list", nil); list.OK["processes"] != 0.0 {
		t.Errorf("%+v", list)
	}
	if used := h.agent.processes.budget.used; used != 0 {
		t.Errorf("%d bytes of output are not given back", used)
	}
}

func TestADriverThatLeavesEndsItsProcessOrNot(t *testing.T) {
	h := personalised(t)
	killed := h.startProcess("sleep 100", map[string]any{"retain_ms": 60000})
	id := h.first(killed).Process.ID
	kept := h.startProcess("sleep 100", map[string]any{"on_disconnect": "keep"})
	other := h.first(kept).Process.ID
	for _, stream := range []uint32{killed, kept} {
		h.send(wire.Close, stream, nil)
		if o := h.end(stream); o.OK["state"] != "left" {
			t.Errorf("%+v", o)
		}
	}
	if p := h.wait(id); endOf(p["ended"]) != "137 KILL disconnected agent" {
		t.Errorf("%+v", p)
	}
	if p := h.process(other); p["state"] != "running" || p["driven"] != false {
		t.Errorf("%+v", p)
	}
	h.killAll()
}

func TestOutputWaitsForADriverDuringTheGrace(t *testing.T) {
	h := personalised(t)
	const count = 3 << 20
	stream := h.startProcess(fmt.Sprintf("seq 1 1000000 | head -c %d", count), map[string]any{
		"key": "k1", "grace_ms": 60000, "retain_ms": 60000, "stdin": true,
	})
	h.first(stream)
	var all []byte
	for len(all) < 500000 {
		frame := h.frame(stream)
		all = append(all, frame.Payload[1:]...)
		h.window(stream, len(frame.Payload)-1)
	}
	h = h.again()
	// The connection is lost in the middle: the same request goes on behind the last byte that has arrived.
	stream = h.startProcess(fmt.Sprintf("seq 1 1000000 | head -c %d", count), map[string]any{
		"key": "k1", "grace_ms": 60000, "retain_ms": 60000, "stdin": true, "elapsed_ms": 3600000,
		"from": map[string]int{"stdout": len(all), "stderr": 0},
	})
	if first := h.first(stream); first.IsNew || first.From.Stdout != int64(len(all)) {
		t.Fatalf("%+v", first)
	}
	o := h.end(stream)
	all = append(all, o.output...)
	if endOf(o.OK["ended"]) != "0 <nil> exited <nil>" || len(all) != count || !isCounting(all) {
		t.Errorf("%d bytes, %+v", len(all), o.OK)
	}
}

// isCounting: the lines are the numbers from 1 on, but for the last one.
func isCounting(all []byte) bool {
	lines := strings.Split(string(all), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != strconv.Itoa(i+1) {
			return false
		}
	}
	return true
}

func TestTheEndOfTheGraceDecides(t *testing.T) {
	h := personalised(t)
	stream := h.startProcess("sleep 100", map[string]any{"grace_ms": 100, "retain_ms": 60000})
	id := h.first(stream).Process.ID
	h.send(wire.Close, stream, nil)
	h.end(stream)
	again := h.attach(id, nil)
	h.first(again)
	time.Sleep(200 * time.Millisecond)
	if p := h.process(id); p["state"] != "running" || p["driven"] != true {
		t.Fatalf("the former driver's grace ended it: %+v", p)
	}
	h.send(wire.Close, again, nil)
	if p := h.wait(id); endOf(p["ended"]) != "137 KILL disconnected agent" {
		t.Errorf("%+v", p)
	}
}

func TestAKeyStartsOneProcess(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	script := "echo once >>" + folder + "/count; sleep 0.2; echo done"
	request := map[string]any{"key": "abc", "retain_ms": 200}
	first, second := h.startProcess(script, request), h.startProcess(script, request)
	if one, two := h.first(first), h.first(second); !one.IsNew || two.IsNew || one.Process.ID != two.Process.ID {
		t.Errorf("%+v %+v", one, two)
	}
	if o := h.end(first); o.OK["state"] != "taken_over" {
		t.Errorf("%+v", o)
	}
	if o := h.end(second); string(o.output) != "done\n" {
		t.Errorf("%q", o.output)
	}
	if o := h.end(h.startProcess(script, request)); string(o.output) != "done\n" || o.OK["state"] != "ended" {
		t.Errorf("after its end: %+v", o)
	}
	for _, c := range []struct {
		script string
		reason wire.Reason
		more   map[string]any
	}{
		{"true", "key_reused", request},
		{script, "key_reused", map[string]any{"key": "abc", "tty": map[string]any{"rows": 1, "cols": 1}}},
		{script, "rebooted", map[string]any{"key": "def", "elapsed_ms": 1 << 40}},
		{script, "rebooted", map[string]any{"key": "def", "from": map[string]int{"stdout": 1}}},
		{script, "", map[string]any{"key": ""}},
		{script, "", map[string]any{"key": "ü"}},
	} {
		o := h.end(h.startProcess(c.script, c.more))
		if o.Error == nil || o.Error.Reason != c.reason {
			t.Errorf("%+v: %+v", c, o)
		}
	}
	await(t, "its key is forgotten", func() bool { return len(h.agent.processes.list()) == 0 })
	if o := h.end(h.startProcess(script, request)); o.Error == nil || o.Error.Reason != "forgotten" {
		t.Errorf("%+v", o)
	}
	if count, _ := os.ReadFile(folder + "/count"); string(count) != "once\n" {
		t.Errorf("it ran %q", count)
	}
}

func TestTheFirstBootOfASandboxKnowsThatNoCommandRanBefore(t *testing.T) {
	h := connect(t)
	h.agent.processes.beFirstBoot(true)
	h.personalise()
	if o := h.end(h.startProcess("true", map[string]any{"key": "k", "elapsed_ms": 1 << 40})); o.OK == nil {
		t.Errorf("%+v", o)
	}
}

func TestForgottenKeysAreBounded(t *testing.T) {
	var m keyMemory
	for i := 0; i < forgottenKeysMax+10; i++ {
		m.add(strconv.Itoa(i))
	}
	if len(m.known) != forgottenKeysMax || m.has("9") || !m.has("10") || !m.has(strconv.Itoa(forgottenKeysMax+9)) {
		t.Errorf("%d keys", len(m.known))
	}
}

func TestWatchersSeeAllAndSlowNobody(t *testing.T) {
	h := personalised(t)
	const count = 4 << 20
	driver := h.startProcess(fmt.Sprintf("read x; head -c %d /dev/zero; read x", count), map[string]any{"stdin": true})
	id := h.first(driver).Process.ID
	stalled, lively := h.attach(id, map[string]any{"mode": "watch"}), h.attach(id, map[string]any{"mode": "watch"})
	h.first(stalled)
	h.first(lively)
	h.data(driver, []byte("go\n"))
	received := map[uint32]int{}
	for received[driver] < count || received[lively] < count {
		for _, stream := range []uint32{driver, lively} {
			if received[stream] == count {
				continue
			}
			frame := h.frame(stream)
			if frame.Type == wire.Data {
				received[stream] += len(frame.Payload) - 1
				h.window(stream, len(frame.Payload)-1)
			}
			if frame.Type == wire.Message {
				received[stream] += skipped(t, frame)
			}
		}
	}
	if p := h.process(id); p["watchers"] != 2.0 || p["driven"] != true {
		t.Errorf("%+v", p)
	}
	h.data(driver, []byte("end\n"))
	if o := h.end(driver); o.OK["state"] != "ended" {
		t.Errorf("%+v", o)
	}
	// The stalled one is told what it has missed, and gets the rest.
	o := h.end(stalled)
	missed := 0
	for _, message := range o.messages {
		missed += int(message["skipped"].(map[string]any)["stdout"].(float64))
	}
	if missed == 0 || missed+len(o.output) != count || o.OK["state"] != "ended" {
		t.Errorf("%d missed, %d came: %+v", missed, len(o.output), o.OK)
	}
}

func skipped(t *testing.T, frame wire.Frame) int {
	t.Helper()
	var message wire.ProcessSkipped
	if err := json.Unmarshal(frame.Payload, &message); err != nil {
		t.Fatal(err)
	}
	return int(message.Skipped.Stdout)
}

func TestAKilledProcessEndsThoughItsDriverReadsNothing(t *testing.T) {
	for name, attached := range map[string]bool{"its starter": false, "a later one": true} {
		h := personalised(t)
		number := "i=0; while :; do i=$((i+1)); echo $i; done"
		driver := h.startProcess(number, map[string]any{"retain_ms": 60000, "key": "k", "grace_ms": 60000})
		id := h.first(driver).Process.ID
		if attached {
			driver = h.attach(id, map[string]any{"from": map[string]int{"stdout": 0, "stderr": 0}})
			h.first(driver)
		}
		var output []byte
		for len(output) < wire.WindowBytes {
			if frame := h.frame(driver); frame.Type == wire.Data {
				output = append(output, frame.Payload[1:]...)
			}
		}
		p, _ := h.agent.processes.find(id)
		await(t, "it waits for its driver", func() bool { return unread(p.outputs[0].file) >= 4096 })
		if o := h.ask("process_signal", map[string]any{"process": id, "signal": "KILL"}); o.OK == nil {
			t.Fatalf("%+v", o.Error)
		}
		await(t, name+" reads nothing, and it ends", func() bool { return h.process(id)["state"] == "ended" })
		h.window(driver, wire.WindowBytes)
		o := h.end(driver)
		output = append(output, o.output...)
		if want := numbers(len(output)); !bytes.Equal(output, want) || len(o.output) == 0 {
			t.Errorf("%s: %d bytes, %d of them after the end, which are not what was written", name, len(output), len(o.output))
		}
		if o.OK["state"] != "ended" || o.OK["ended"].(map[string]any)["reason"] != "signal" {
			t.Errorf("%s: %+v", name, o.OK)
		}
	}
}

func TestAKillEndsTheWaitForADriverWhoseRingIsSmall(t *testing.T) {
	h := personalised(t)
	driver := h.startProcess("head -c 500000 /dev/zero", map[string]any{"retain_ms": 60000, "ring_bytes": ringBytesLeast})
	id := h.first(driver).Process.ID
	another := h.attach(id, nil)
	h.first(another)
	p, _ := h.agent.processes.find(id)
	await(t, "the driver stalls", func() bool { return unread(p.outputs[0].file) >= 32768 })
	h.ask("process_signal", map[string]any{"process": id, "signal": "KILL"})
	await(t, "it ends", func() bool { return h.process(id)["state"] == "ended" })
	if o := h.end(another); o.OK["state"] != "ended" {
		t.Errorf("%+v", o.OK)
	}
}

func unread(file *os.File) (count int) {
	raw, _ := file.SyscallConn()
	_ = raw.Control(func(fd uintptr) { count = readableBytes(int(fd)) })
	return count
}

// numbers are the first bytes of the lines 1, 2, and so on.
func numbers(size int) []byte {
	var text bytes.Buffer
	for i := 1; text.Len() < size; i++ {
		fmt.Fprintln(&text, i)
	}
	return text.Bytes()[:size]
}

func TestALateClientSeesTheOutputsInTheirOrder(t *testing.T) {
	h := personalised(t)
	// Each line is acknowledged before the next one is written.
	script := "while read x; do case $x in o*) echo $x;; e*) echo $x >&2;; *) exit;; esac; done"
	driver := h.startProcess(script, map[string]any{"stdin": true, "retain_ms": 60000})
	id := h.first(driver).Process.ID
	want := ""
	for i := 0; i < 3*ordersMax/2; i++ {
		line := fmt.Sprintf("%c%d\n", "oe"[i%2], i)
		h.data(driver, []byte(line))
		for got := ""; got != line; {
			if frame := h.frame(driver); frame.Type == wire.Data {
				got += string(frame.Payload[1:])
				h.window(driver, len(frame.Payload)-1)
			}
		}
		want += line
	}
	o := h.end(h.attach(id, map[string]any{"mode": "watch", "follow": false}))
	// The order of the oldest is forgotten, but none of the bytes.
	known := len(want) / 3
	if got := string(o.output); len(got) != len(want) || got[len(got)-known:] != want[len(want)-known:] {
		t.Errorf("%d bytes of %d: %q…", len(got), len(want), got[:200])
	}
	h.killAll()
}

func TestAWatchersInputAndMessagesAreIgnored(t *testing.T) {
	h := personalised(t)
	driver := h.startProcess("cat", map[string]any{"stdin": true})
	watcher := h.attach(h.first(driver).Process.ID, map[string]any{"mode": "watch"})
	h.first(watcher)
	h.data(watcher, []byte("mine"))
	h.send(wire.Message, watcher, []byte(`{"signal":"KILL"}`))
	h.send(wire.End, watcher, []byte{wire.Stdin})
	h.data(driver, []byte("yours"))
	h.send(wire.End, driver, []byte{wire.Stdin})
	for _, stream := range []uint32{driver, watcher} {
		if o := h.end(stream); string(o.output) != "yours" || endOf(o.OK["ended"]) != "0 <nil> exited <nil>" {
			t.Errorf("%+v %q", o, o.output)
		}
	}
}

func TestOutputIsReadOnceFromAnOffsetOrATime(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	id := h.keep("echo early; sleep 1.5; echo late; exec sleep 100", nil)
	read := func(more map[string]any) string {
		more["follow"], more["mode"] = false, "watch"
		o := h.end(h.attach(id, more))
		if o.OK["state"] != "left" {
			t.Fatalf("%+v", o)
		}
		return string(o.output)
	}
	await(t, "all is written", func() bool { return read(map[string]any{}) == "early\nlate\n" })
	for want, more := range map[string]map[string]any{
		"ly\nlate\n": {"from": map[string]int{"stdout": 3, "stderr": 0}},
		"late\n":     {"since_ms": 200},
		"":           {"from": map[string]int{"stdout": 11, "stderr": 0}},
	} {
		if got := read(more); got != want {
			t.Errorf("%v: %q", more, got)
		}
	}
	o := h.end(h.attach(id, map[string]any{"from": map[string]int{"stdout": 12, "stderr": 0}}))
	if o.Error == nil || o.Error.Code != wire.Invalid {
		t.Errorf("%+v", o)
	}
}

func TestInputComesFromOtherRequestsToo(t *testing.T) {
	h := personalised(t)
	id := h.keep("cat; echo over", map[string]any{"stdin": true})
	input := func(text string, more map[string]any) outcome {
		request := map[string]any{"process": id}
		for name, value := range more {
			request[name] = value
		}
		stream := h.start("process_input", request)
		h.data(stream, []byte(text))
		h.send(wire.End, stream, []byte{wire.Stdin})
		return h.end(stream)
	}
	for _, c := range []struct {
		text string
		more map[string]any
		want any
	}{
		{"one ", nil, 4.0}, {"one two ", map[string]any{"at": 0}, 8.0}, {"two ", map[string]any{"at": 4}, 8.0},
		{"three", map[string]any{"at": 8, "close": true}, 13.0},
	} {
		if o := input(c.text, c.more); o.OK["input"] != c.want {
			t.Errorf("%+v: %+v", c, o)
		}
	}
	p := h.wait(id)
	if o := h.end(h.attach(id, nil)); string(o.output) != "one two threeover\n" || p["input_open"] != false {
		t.Errorf("%q %+v", o.output, p)
	}
	id = h.keep("exec sleep 100", map[string]any{"stdin": true})
	if o := input("x", map[string]any{"at": 1}); o.Error == nil || o.Error.Code != wire.Conflict {
		t.Errorf("a gap: %+v", o)
	}
	id = h.keep("exec sleep 100", nil)
	if o := input("x", nil); o.Error == nil || o.Error.Code != wire.Conflict {
		t.Errorf("no input: %+v", o)
	}
	h.killAll()
}

func TestADriverThatComesBackIsToldOfItsOwnInput(t *testing.T) {
	h := personalised(t)
	another := func(text string) {
		stream := h.start("process_input", map[string]any{"process": "p1"})
		h.data(stream, []byte(text))
		h.send(wire.End, stream, []byte{wire.Stdin})
		h.end(stream)
	}
	keyed := func(text string) *int64 {
		stream := h.startProcess("cat", map[string]any{"stdin": true, "key": "k", "grace_ms": 60000, "retain_ms": 1000})
		written := h.first(stream).Written
		if text == "" {
			h.send(wire.End, stream, []byte{wire.Stdin})
			if o := h.end(stream); string(o.output) != "one others two three " {
				t.Errorf("%q", o.output)
			}
			return written
		}
		h.data(stream, []byte(text))
		await(t, "it is taken", func() bool {
			p, _ := h.agent.processes.find("p1")
			return p.writers["k"].bytes() == *written+int64(len(text))
		})
		return written
	}
	if written := keyed("one "); *written != 0 {
		t.Errorf("first: %d", *written)
	}
	another("others ")
	h = h.again()
	stream := h.attach("p1", map[string]any{"writer": "w"})
	if greeting := h.first(stream); *greeting.Written != 0 || greeting.Input != 11 {
		t.Errorf("another driver: %+v", greeting)
	}
	h.data(stream, []byte("two "))
	await(t, "it is taken", func() bool { p, _ := h.agent.processes.find("p1"); return p.allInput.bytes() == 15 })
	h = h.again()
	if written := keyed("three "); *written != 4 {
		t.Errorf("back: %d", *written)
	}
	h = h.again()
	if written := keyed(""); *written != 10 {
		t.Errorf("at the end: %d", *written)
	}
}

func TestTheEndOfADriversInputIsTypedOnce(t *testing.T) {
	h := personalised(t)
	start := func() uint32 {
		stream := h.startProcess("cat; echo over; cat; echo again", map[string]any{
			"stdin": true, "key": "k", "grace_ms": 60000, "tty": map[string]int{"rows": 5, "cols": 40},
		})
		h.first(stream)
		return stream
	}
	stream := start()
	h.send(wire.End, stream, []byte{wire.Stdin})
	h.see(stream, "over")
	another := func(text string) {
		stream := h.start("process_input", map[string]any{"process": "p1"})
		h.data(stream, []byte(text))
		h.send(wire.End, stream, []byte{wire.Stdin})
		h.end(stream)
	}
	another("x\r")
	h.see(stream, "x\r\nx")
	h = h.again()
	stream = start()
	h.send(wire.End, stream, []byte{wire.Stdin})
	await(t, "it is ended", func() bool { p, _ := h.agent.processes.find("p1"); return isClosed(p.feeding) })
	another("y\r")
	seen := h.see(stream, "y\r\n")
	for strings.Count(seen, "y\r\n") < 2 { // its echo, which may come before the program's x, and the program's
		seen += h.see(stream, "\n")
	}
	if strings.Contains(seen, "again") {
		t.Errorf("typed twice: %q", seen)
	}
	h.killAll()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNamesOfDriversAreBounded(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	id := h.keep("exec sleep 100", map[string]any{"stdin": true})
	for i := 0; i < writersMax+2; i++ {
		stream := h.attach(id, map[string]any{"writer": fmt.Sprint("w", i)})
		if isCounted := h.first(stream).Written != nil; isCounted != (i < writersMax) {
			t.Errorf("%d: %v", i, isCounted)
		}
	}
}

func TestBlockedInputOfAnotherRequestKeepsNoDriverOut(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	id := h.keep("exec sleep 100", map[string]any{"stdin": true})
	blocked := h.start("process_input", map[string]any{"process": id})
	fill := func(stream uint32) {
		for i := 0; i < wire.WindowBytes/wire.DataBytesMax; i++ {
			h.data(stream, make([]byte, wire.DataBytesMax))
		}
	}
	fill(blocked)
	await(t, "it writes", func() bool { return len(h.agent.processes.list()[0].writing) == 1 })
	for i := 0; i < 3; i++ {
		driver := h.attach(id, nil)
		h.first(driver)
		fill(driver)
	}
	h.send(wire.Close, blocked, nil)
	if o := h.end(blocked); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o)
	}
}

func TestADriverGoesOnTypingBehindWhatTheProgramHasTaken(t *testing.T) {
	h := personalised(t)
	stream := h.startProcess("read x; read y; cat", map[string]any{"stdin": true, "key": "k", "grace_ms": 60000, "retain_ms": 1000})
	h.first(stream)
	text := bytes.Repeat([]byte("0123456789abcdef\n"), 12000)
	for sent := 0; sent < len(text); sent += 32000 {
		h.data(stream, text[sent:minimum(sent+32000, len(text))])
	}
	// More than the pipe holds: some of it is lost with the connection, and the guest tells how much it has taken.
	await(t, "the pipe is full", func() bool { return h.agent.processes.list()[0].allInput.bytes() >= 65536 })
	h = h.again()
	stream = h.attach("p1", map[string]any{"from": map[string]int{"stdout": 0, "stderr": 0}})
	rest := text[h.first(stream).Input:]
	for sent := 0; sent < len(rest); sent += 32000 {
		h.data(stream, rest[sent:minimum(sent+32000, len(rest))])
	}
	h.send(wire.End, stream, []byte{wire.Stdin})
	if o := h.end(stream); !bytes.Equal(o.output, text[2*17:]) {
		t.Errorf("%d bytes of %d came back", len(o.output), len(text)-2*17)
	}
}

func TestAnEndHasAReasonAndAnAuthor(t *testing.T) {
	h := personalised(t)
	for _, c := range []struct {
		script string
		more   map[string]any
		signal map[string]any
		want   string
	}{
		{"kill -TERM $$", nil, nil, "143 TERM signal guest"},
		{"kill -SEGV $$", nil, nil, "139 SEGV signal guest"},
		{"sleep 100", map[string]any{"timeout_ms": 50}, nil, "137 KILL time_limit agent"},
		{"exec sleep 100", nil, map[string]any{"signal": "TERM", "by": "user alice"}, "143 TERM signal user alice"},
		{"exec sleep 100", nil, map[string]any{"signal": "KILL"}, "137 KILL signal client"},
		{"exit 137", nil, nil, "137 <nil> exited <nil>"},
	} {
		id := h.keep(c.script, c.more)
		if c.signal != nil {
			c.signal["process"] = id
			h.ask("process_signal", c.signal)
		}
		if p := h.wait(id); endOf(p["ended"]) != c.want {
			t.Errorf("%s: %s, not %s", c.script, endOf(p["ended"]), c.want)
		}
	}
	if o := h.ask("process_signal", map[string]any{"process": "p1"}); o.Error == nil || o.Error.Code != wire.Conflict {
		t.Errorf("%+v", o)
	}
}

func TestATerminalIsRedrawnForANewWindowAndNotForTheSame(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	tty := func(rows int) map[string]int { return map[string]int{"rows": rows, "cols": 70} }
	stream := h.startProcess(`printf ready; while read line; do stty size; done`, map[string]any{
		"tty": tty(20), "stdin": true, "on_disconnect": "keep",
	})
	p := h.first(stream).Process
	if p.ID != "s1" || !p.HasTerminal {
		t.Errorf("%+v", p)
	}
	h.see(stream, "ready")
	stream = h.attach("s1", map[string]any{"tty": tty(30)})
	h.first(stream)
	if frame := h.frame(stream); frame.Type != wire.Data || string(frame.Payload[1:]) != "ready" {
		t.Errorf("%+v", frame)
	}
	if frame := h.frame(stream); frame.Type != wire.Message || !strings.Contains(string(frame.Payload), `{"show":`) {
		t.Errorf("%+v", frame)
	}
	stream = h.attach("s1", map[string]any{"tty": tty(40), "from": map[string]int{"stdout": 5}})
	h.first(stream)
	h.data(stream, []byte("\r"))
	if seen := h.see(stream, "\r\n40 70\r\n"); seen != "\r\n40 70\r\n" {
		t.Errorf("%q", seen)
	}
	if o := h.ask("process_resize", map[string]any{"process": "s1", "rows": 9, "cols": 8}); o.OK == nil {
		t.Errorf("%+v", o)
	}
	h.data(stream, []byte("\r"))
	h.see(stream, "9 8\r\n")
}

func TestTheEndOfATerminalsInputIsTypedOnce(t *testing.T) {
	h := personalised(t)
	request := map[string]any{
		"tty": map[string]int{"rows": 20, "cols": 70}, "stdin": true, "key": "k", "on_disconnect": "keep", "retain_ms": 60000,
	}
	const script = `stty -echo; echo ready; cat; echo first ended; cat; echo second ended`
	stream := h.startProcess(script, request)
	h.first(stream)
	h.see(stream, "ready\r\n")
	h.data(stream, []byte("a\r"))
	h.send(wire.End, stream, []byte{wire.Stdin})
	h.see(stream, "first ended")
	for i := 0; i < 3; i++ {
		stream = h.startProcess(script, request)
		h.first(stream)
		h.send(wire.End, stream, []byte{wire.Stdin})
		h.see(stream, "first ended")
	}
	stream = h.startProcess(script, request)
	h.first(stream)
	h.data(stream, []byte("b\r"))
	if seen := h.see(stream, "b\r\n"); strings.Contains(seen, "second") {
		t.Errorf("its end was typed again: %q", seen)
	}
	h.send(wire.End, stream, []byte{wire.Stdin})
	if o := h.end(stream); !strings.Contains(string(o.output), "second ended") {
		t.Errorf("%+v", o)
	}
}

func TestStartsThatAreNotPossibleAreRefused(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	h.keep("exec sleep 100", map[string]any{"name": "taken"})
	for _, c := range []struct {
		more map[string]any
		code wire.Code
	}{
		{map[string]any{"name": "taken"}, wire.Conflict},
		{map[string]any{"name": "p7"}, wire.Invalid},
		{map[string]any{"name": "s7"}, wire.Invalid},
		{map[string]any{"argv": []string{}}, wire.Invalid},
		{map[string]any{"argv": []string{"no-such-program"}}, wire.NotFound},
		{map[string]any{"attach": false}, wire.Invalid},
		{map[string]any{"on_disconnect": "ask"}, wire.Invalid},
		{map[string]any{"ring_bytes": 65535}, wire.Invalid},
		{map[string]any{"ring_bytes": 16<<20 + 1}, wire.Invalid},
		{map[string]any{"grace_ms": -1}, wire.Invalid},
		{map[string]any{"timeout_ms": 0}, wire.Invalid},
		{map[string]any{"retain_ms": int64(1) << 60}, wire.Invalid},
	} {
		if o := h.end(h.startProcess("true", c.more)); o.Error == nil || o.Error.Code != c.code {
			t.Errorf("%v: %+v", c.more, o)
		}
	}
	if o := h.ask("process_forget", map[string]any{"process": "taken"}); o.Error == nil || o.Error.Code != wire.Conflict {
		t.Errorf("%+v", o)
	}
}

func TestTheListIsSentInParts(t *testing.T) {
	h := personalised(t)
	for i := 0; i < 60; i++ {
		h.keep(": "+strings.Repeat("\x01", 4000), nil)
	}
	o := h.ask("process_list", nil)
	count := 0
	for _, message := range o.messages {
		count += len(message["processes"].([]any))
	}
	if count != 60 || o.OK["processes"] != 60.0 || len(o.messages) < 2 {
		t.Errorf("%d in %d messages: %+v", count, len(o.messages), o.OK)
	}
}

func TestWatchersAreBounded(t *testing.T) {
	h := personalised(t)
	defer h.killAll()
	id := h.keep("exec sleep 100", nil)
	for i := 0; i < watchersMax; i++ {
		h.first(h.attach(id, map[string]any{"mode": "watch"}))
	}
	if o := h.end(h.attach(id, map[string]any{"mode": "watch"})); o.Error == nil || o.Error.Code != wire.LimitExceeded {
		t.Errorf("%+v", o)
	}
}
