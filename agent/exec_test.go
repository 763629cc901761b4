// Commands with pipes: their ends, their streams within the windows, their users, and what cannot start.

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

func TestACommandEndsWithItsCode(t *testing.T) {
	h := personalised(t)
	e := h.finish(h.sh("echo out; echo err >&2; exit 7"))
	if e.OK == nil || e.OK.ExitCode != 7 || e.OK.Signal != nil {
		t.Errorf("%+v %+v", e.OK, e.Error)
	}
	if string(e.stdout) != "out\n" || string(e.stderr) != "err\n" {
		t.Errorf("stdout %q, stderr %q", e.stdout, e.stderr)
	}
}

func TestASignalIsReported(t *testing.T) {
	h := personalised(t)
	e := h.finish(h.sh("kill -TERM $$"))
	if e.OK == nil || e.OK.ExitCode != 143 || e.OK.Signal == nil || *e.OK.Signal != "TERM" {
		t.Errorf("%+v", e.OK)
	}
}

func TestASignalReachesTheWholeGroup(t *testing.T) {
	h := personalised(t)
	// TERM, since a shell starts its background commands with INT ignored.
	stream := h.sh(`trap 'wait; echo leader; exit 3' TERM; sh -c 'trap "echo member; exit" TERM; echo up; while :; do sleep 0.01; done' & wait`)
	h.frame(stream)
	h.frame(stream)
	h.send(wire.Message, stream, []byte(`{"signal":"TERM"}`))
	e := h.finish(stream)
	if e.OK == nil || e.OK.ExitCode != 3 || !bytes.Contains(e.stdout, []byte("member\nleader\n")) {
		t.Errorf("%+v %q", e.OK, e.stdout)
	}
}

func TestUnknownMessagesChangeNothing(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{"argv": []string{"cat"}, "stdin": true})
	for _, message := range []string{``, `7`, `{"signal":"NOPE"}`, `{"dance":true}`, `{"resize":{"rows":1,"cols":1}}`} {
		h.send(wire.Message, stream, []byte(message))
	}
	h.send(wire.End, stream, []byte{wire.Stdin})
	if e := h.finish(stream); e.OK == nil || e.OK.ExitCode != 0 {
		t.Errorf("%+v", e)
	}
}

func TestWithoutStdinTheCommandReadsTheEnd(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{"argv": []string{"cat"}})
	h.data(stream, []byte("nobody reads this"))
	if e := h.finish(stream); e.OK == nil || len(e.stdout) > 0 {
		t.Errorf("%+v %q", e, e.stdout)
	}
}

func TestInputIsEchoedWhole(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{"argv": []string{"sha256sum"}, "stdin": true})
	hash := sha256.New()
	window := wire.WindowBytes
	chunk := make([]byte, wire.DataBytesMax)
	for sent := 0; sent < 4<<20; sent += len(chunk) {
		for i := range chunk {
			chunk[i] = byte(sent>>13 + i*7)
		}
		for window < len(chunk) {
			frame := h.frame(stream)
			if frame.Type == wire.Window {
				window += int(frame.Payload[1])<<16 | int(frame.Payload[2])<<8 | int(frame.Payload[3])
			}
		}
		hash.Write(chunk)
		h.data(stream, chunk)
		window -= len(chunk)
	}
	h.send(wire.End, stream, []byte{wire.Stdin})
	e := h.finish(stream)
	if want := fmt.Sprintf("%x", hash.Sum(nil)); !strings.HasPrefix(string(e.stdout), want) {
		t.Errorf("%s, not %s", e.stdout, want)
	}
}

func TestInputThatTheCommandDoesNotReadIsDropped(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{"argv": []string{"sh", "-c", "exec <&-; sleep 0.2; echo done"}, "stdin": true})
	given := 0
	for i := 0; i < wire.WindowBytes/wire.DataBytesMax; i++ {
		h.data(stream, make([]byte, wire.DataBytesMax))
	}
	for given < wire.WindowBytes/2 {
		if frame := h.frame(stream); frame.Type == wire.Window {
			given += int(frame.Payload[1])<<16 | int(frame.Payload[2])<<8
		}
	}
	if e := h.finish(stream); string(e.stdout) != "done\n" {
		t.Errorf("%q", e.stdout)
	}
}

func TestOutputStopsAtTheWindow(t *testing.T) {
	h := personalised(t)
	flood, other := h.sh("yes"), 0
	_ = h.startedPid(flood)
	received := 0
	for received < wire.WindowBytes {
		frame := h.frame(flood)
		received += len(frame.Payload) - 1
	}
	// The flood has used its window. Another command is as quick as ever, and nothing more comes of the flood.
	for ; other < 10; other++ {
		if e := h.finish(h.sh("echo quick")); string(e.stdout) != "quick\n" {
			t.Fatalf("%+v", e)
		}
	}
	if more := len(h.queued[flood]); received != wire.WindowBytes || more != 0 {
		t.Errorf("%d bytes came, and %d frames more", received, more)
	}
	h.window(flood, 10)
	if frame := h.frame(flood); len(frame.Payload) != 11 {
		t.Errorf("%d bytes for a credit of 10", len(frame.Payload)-1)
	}
	h.send(wire.Close, flood, nil)
	if e := h.finish(flood); e.OK == nil || *e.OK.Signal != "KILL" {
		t.Errorf("%+v", e)
	}
}

func TestLargeOutputIsWhole(t *testing.T) {
	h := personalised(t)
	const count = 20 << 20
	e := h.finish(h.exec(map[string]any{"argv": []string{"head", "-c", fmt.Sprint(count), "/dev/zero"}}))
	if len(e.stdout) != count {
		t.Errorf("%d bytes", len(e.stdout))
	}
}

func TestLastOutputIsNotLost(t *testing.T) {
	h := personalised(t)
	for i := 0; i < 50; i++ {
		if e := h.finish(h.sh("seq 1 8000")); !strings.HasSuffix(string(e.stdout), "\n8000\n") {
			t.Fatalf("round %d: %d bytes", i, len(e.stdout))
		}
	}
}

func TestABackgroundChildIsNotWaitedForAndLives(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	begin := time.Now()
	e := h.finish(h.sh("(sleep 0.3; echo late; echo alive >" + folder + "/proof; sleep 100) & echo $!"))
	if took := time.Since(begin); took > deadline/2 {
		t.Errorf("it took %v", took)
	}
	pid := 0
	if _, err := fmt.Sscan(string(e.stdout), &pid); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	await(t, "the child outlives its write", func() bool {
		proof, _ := os.ReadFile(filepath.Join(folder, "proof"))
		return string(proof) == "alive\n"
	})
}

func TestCloseKillsTheWholeSession(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{"argv": []string{"bash", "-c",
		"sleep 101 & echo $!; set -m; sleep 102 & echo $!; echo $$; wait"}})
	_ = h.startedPid(stream)
	var output []byte
	for bytes.Count(output, []byte("\n")) < 3 {
		output = append(output, h.frame(stream).Payload[1:]...)
	}
	h.send(wire.Close, stream, nil)
	e := h.finish(stream)
	if e.OK == nil || e.OK.ExitCode != 137 {
		t.Errorf("%+v", e)
	}
	for _, text := range strings.Fields(string(output)) {
		pid := 0
		fmt.Sscan(text, &pid)
		await(t, "process "+text+" is gone", func() bool { return !isAlive(pid) || isZombie(pid) })
	}
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	state, _, _ := parseStat(string(stat))
	return err == nil && state == "Z"
}

func TestTheEnvironmentIsLayered(t *testing.T) {
	h := personalised(t)
	stream := h.exec(map[string]any{
		"argv": []string{"sh", "-c", `echo "$SANDBOX $OWN $HOME $USER $TERM"`}, "env": map[string]string{"OWN": "1", "HOME": "/x"},
	})
	if e := h.finish(stream); string(e.stdout) != "yes 1 /x "+ownName+" \n" {
		t.Errorf("%q", e.stdout)
	}
}

func TestTheProgramIsFoundInTheCommandsOwnPath(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder+"/greet", []byte("#!/bin/sh\necho hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	e := h.finish(h.exec(map[string]any{"argv": []string{"greet"}, "env": map[string]string{"PATH": folder}}))
	if string(e.stdout) != "hello\n" {
		t.Errorf("%+v %q", e.Error, e.stdout)
	}
	e = h.finish(h.exec(map[string]any{"argv": []string{"./greet"}, "cwd": folder}))
	if string(e.stdout) != "hello\n" {
		t.Errorf("%+v %q", e.Error, e.stdout)
	}
}

func TestWhatCannotStartIsAnError(t *testing.T) {
	h := personalised(t)
	folder := t.TempDir()
	for name, content := range map[string]string{"plain": "echo hi\n", "lost": "#!/no/such/shell\n"} {
		if err := os.WriteFile(folder+"/"+name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		request map[string]any
		code    wire.Code
		says    string
	}{
		{map[string]any{"argv": []string{"no-such-program"}}, wire.NotFound, "no-such-program"},
		{map[string]any{"argv": []string{"/no/such"}}, wire.NotFound, "/no/such"},
		{map[string]any{"argv": []string{"/etc/passwd"}}, wire.Invalid, "not executable"},
		{map[string]any{"argv": []string{"/etc"}}, wire.Invalid, "directory"},
		{map[string]any{"argv": []string{folder + "/plain"}}, wire.Invalid, "plain"},
		{map[string]any{"argv": []string{folder + "/lost"}}, wire.NotFound, "lost"},
		{map[string]any{"argv": []string{"true"}, "user": "no-such-user"}, wire.Invalid, "no-such-user"},
		{map[string]any{"argv": []string{"true"}, "cwd": "/no/such"}, wire.Invalid, "/no/such"},
		{map[string]any{"argv": []string{"true"}, "cwd": "/etc/passwd"}, wire.Invalid, "/etc/passwd"},
		{map[string]any{"argv": []string{}}, wire.Invalid, "argv"},
		{map[string]any{"argv": []string{""}}, wire.Invalid, "argv"},
		{map[string]any{"argv": []string{"true", "a\x00b"}}, wire.Invalid, "zero byte"},
		{map[string]any{"argv": []string{"true"}, "env": map[string]string{"A=B": "c"}}, wire.Invalid, "A=B"},
	} {
		e := h.finish(h.exec(c.request))
		if e.Error == nil || e.Error.Code != c.code || !strings.Contains(e.Error.Message, c.says) {
			t.Errorf("%v: %+v", c.request, e.Error)
		}
	}
}

func TestACommandRunsAsItsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	h := personalised(t)
	who, err := findAccount("/etc", "nobody")
	if err != nil {
		t.Skip("this machine has no user nobody")
	}
	stream := h.exec(map[string]any{"argv": []string{"sh", "-c", "id -u; id -G; echo x >/dev/stderr"}, "user": "nobody"})
	e := h.finish(stream)
	want := fmt.Sprintf("%d\n%s\n", who.uid, strings.Trim(fmt.Sprint(who.groups), "[]"))
	if string(e.stdout) != want || string(e.stderr) != "x\n" {
		t.Errorf("stdout %q, stderr %q", e.stdout, e.stderr)
	}
	e = h.finish(h.exec(map[string]any{"argv": []string{"true"}, "user": "nobody", "cwd": privateFolder(t)}))
	if e.Error == nil || e.Error.Code != wire.Invalid || !strings.Contains(e.Error.Message, "nobody") {
		t.Errorf("%+v", e)
	}
}

func privateFolder(t *testing.T) string {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestManyCommandsLeaveNothingBehind(t *testing.T) {
	h := personalised(t)
	h.finish(h.sh("true"))
	before := openFiles(t)
	for round := 0; round < 10; round++ {
		var streams []uint32
		for i := 0; i < 20; i++ {
			streams = append(streams, h.sh("true"))
		}
		for _, stream := range streams {
			if e := h.finish(stream); e.OK == nil || e.OK.ExitCode != 0 {
				t.Fatalf("%+v", e)
			}
		}
	}
	await(t, "files and processes are given back", func() bool {
		theReaper.mu.Lock()
		defer theReaper.mu.Unlock()
		return openFiles(t) <= before && len(theReaper.children) == 0
	})
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
