// The process part of protocol/vectors.json, read by the guest's end of the wire.

package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

type processVectors struct {
	ProcessRequests []struct {
		Name string
		JSON json.RawMessage
	}
	ProcessMessages, ProcessResults []struct{ Name, Text string }
}

func readProcessVectors(t testing.TB) processVectors {
	t.Helper()
	text, err := os.ReadFile("../../protocol/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all processVectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestProcessRequestsAreUnderstood(t *testing.T) {
	text, no, yes, limit, since := func(text string) *string { return &text }, false, true, int64(1000), int64(60000)
	input := int64(5)
	want := map[string]any{
		"start with what is required": &ProcessStart{Exec: Exec{Argv: []string{"true"}}},
		"start with everything": &ProcessStart{
			Exec: Exec{
				Argv: []string{"sh", "-c", "echo"}, Env: map[string]string{"A": "b"}, Cwd: "/tmp", User: "root", Stdin: true,
				Terminal: &Terminal{Size: Size{Rows: 24, Cols: 80}, Term: "xterm"},
			},
			Name: text("init"), Key: text("0c9"), ElapsedMs: 1500, From: &Offsets{7, 9}, OnDisconnect: "keep",
			GraceMs: 30000, RetainMs: 60000, RingBytes: 65536, TimeoutMs: &limit, Attach: &no,
		},
		"start as a command": &ProcessStart{
			Exec: Exec{Argv: []string{"true"}, Env: map[string]string{"A": "b"}}, Key: text("0c9"), OnDisconnect: "kill",
			GraceMs: 30000, RetainMs: 60000, RingBytes: 1048576, Attach: &yes,
		},
		"attach":               &ProcessAttach{Process: "s1", Mode: "drive", Size: &Size{Rows: 24, Cols: 80}, Writer: text("c0ffee")},
		"watch from an offset": &ProcessAttach{Process: "p1", Mode: "watch", From: &Offsets{7, 9}, Follow: &no},
		"watch from a time":    &ProcessAttach{Process: "p1", Mode: "watch", SinceMs: &since, Follow: &yes},
		"list processes":       &ProcessNamed{},
		"get a process":        &ProcessNamed{Process: "init"},
		"wait for a process":   &ProcessNamed{Process: "p1"},
		"signal a process":     &ProcessSignal{Process: "p1", Signal: "TERM", Scope: "session", By: "stop"},
		"write to a process":   &ProcessInput{Process: "p1", At: &input, Close: true},
		"resize a process":     &ProcessResize{Process: "s1", Size: Size{Rows: 50, Cols: 132}},
		"forget a process":     &ProcessNamed{Process: "p1"},
	}
	for _, vector := range readProcessVectors(t).ProcessRequests {
		wanted, isKnown := want[vector.Name]
		if !isKnown {
			t.Errorf("%s has no meaning here", vector.Name)
			continue
		}
		delete(want, vector.Name)
		got := reflect.New(reflect.TypeOf(wanted).Elem()).Interface()
		if err := Decode(vector.JSON, got); err != nil || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s: %+v, %v", vector.Name, got, err)
		}
	}
	if len(want) > 0 {
		t.Errorf("no vectors for %v", want)
	}
}

func TestProcessMessagesAreEncoded(t *testing.T) {
	kill, agent, name, endedMs := "KILL", ByAgent, "init", int64(1700000001000)
	written := int64(5)
	ended := Ended{ExitCode: 137, Signal: &kill, Reason: EndTimeLimit, By: &agent}
	running := Process{
		ID: "p12", Pid: 123, Argv: []string{"sh", "-c", "ü <&>"}, User: "lohar", Cwd: "/workspace", State: StateRunning,
		OnDisconnect: DisconnectKill, Driven: true, InputOpen: true, CreatedUnixMs: 1700000000000,
		Output: ProcessOutput{Stdout: Kept{0, 5}},
	}
	over := Process{
		ID: "s3", Name: &name, Pid: 123, Argv: []string{"bash"}, User: "lohar", Cwd: "/workspace", HasTerminal: true,
		State: StateEnded, Ended: &ended, OnDisconnect: DisconnectKeep, Watchers: 2, CreatedUnixMs: 1700000000000,
		EndedUnixMs: &endedMs, Output: ProcessOutput{Stdout: Kept{7, 9000000000}},
	}
	full := Ended{ExitCode: 3, Reason: EndExited, Detail: &EndDetail{DiskFull: NoSpace}}
	messages := []any{
		ProcessMessage{Process: running, IsNew: true}, ProcessMessage{Process: over, From: Offsets{7, 0}, Input: 12, Written: &written},
		ProcessSkipped{Skipped: Offsets{5, 0}}, ProcessShow{Show: "\x1b7\x1b[r\x1b8"}, Processes{[]Process{running, over}},
		ProcessNotice{ProcessEnd{Process: "p12", Program: "sh", Pid: 123, Ended: ended}},
	}
	results := []any{
		ProcessStarted{running, true}, ProcessFound{over}, ProcessState{State: StateLeft}, ProcessState{State: StateTakenOver},
		ProcessState{StateEnded, &ended}, ProcessState{StateEnded, &full}, ProcessCount{2}, InputTaken{5},
	}
	all := readProcessVectors(t)
	for index, vector := range all.ProcessMessages {
		if got := string(Encode(messages[index])); got != vector.Text {
			t.Errorf("%s: %s", vector.Name, got)
		}
	}
	for index, vector := range all.ProcessResults {
		result := Result{Error: Errorf(Conflict, "x").Because(KeyReused)}
		if index < len(results) {
			result = Result{OK: results[index]}
		}
		if got := string(Encode(result)); got != vector.Text {
			t.Errorf("%s: %s", vector.Name, got)
		}
	}
}

// A start as hosts send it, and its answers, must take the fast path.
func TestTheStartOfACommandNeedsNoReflection(t *testing.T) {
	all := readProcessVectors(t)
	for _, vector := range all.ProcessRequests {
		var compact bytes.Buffer
		if err := json.Compact(&compact, vector.JSON); err != nil {
			t.Fatal(err)
		}
		isPlain := vector.Name == "start with what is required" || vector.Name == "start as a command"
		if got := readPlain(compact.Bytes(), &ProcessStart{}); isPlain && (!got || readPlainOperation(compact.Bytes()) == "") {
			t.Errorf("%s: %s", vector.Name, compact.String())
		}
	}
	if encodePlain(ProcessMessage{}) == nil || encodePlain(Result{OK: ProcessState{}}) == nil {
		t.Error("an answer needs encoding/json")
	}
}
