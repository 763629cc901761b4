// protocol/vectors.json, read by the guest's end of the wire.

package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"
)

type vectorFrame struct {
	Type    string `json:"type"`
	Stream  uint32 `json:"stream"`
	Payload string `json:"payload"`
}

type vectorPreamble struct {
	Nonce      string `json:"nonce"`
	Generation uint16 `json:"generation"`
	Hex        string `json:"hex"`
}

type vectorEvent struct {
	Preamble *vectorPreamble `json:"preamble"`
	Frame    *vectorFrame    `json:"frame"`
	Broken   bool            `json:"broken"`
}

type vectors struct {
	Frames []struct {
		Name  string
		Frame vectorFrame
		Hex   string
	}
	BrokenHeaders, WholeHeaders []struct{ Name, Hex string }
	Extents                     []struct {
		Name, Payload  string
		Channel        byte
		Offset, Length int
	}
	BadExtents []struct{ Name, Payload string }
	GuestReads []struct {
		Name, Hex string
		Events    []vectorEvent
	}
	GuestPreamble vectorPreamble
	Requests      []struct {
		Name string
		JSON json.RawMessage
	}
	BadRequests []struct{ Name, Text string }
	ToProcess   []struct {
		Name string
		JSON json.RawMessage
	}
	Messages []struct{ Name, Text string }
	Results  []struct {
		Name, Text string
		OK         json.RawMessage
		Error      *Error
	}
}

var typeNames = map[string]Type{
	"open": Open, "data": Data, "window": Window, "end": End, "message": Message, "close": Close,
	"data_at": DataAt,
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("../../protocol/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	decoded, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

func TestFramesAreEncodedAndDecoded(t *testing.T) {
	for _, vector := range readVectors(t).Frames {
		payload, want := unhex(t, vector.Frame.Payload), unhex(t, vector.Hex)
		frame := Frame{Type: typeNames[vector.Frame.Type], Stream: vector.Frame.Stream, Payload: payload}
		if got := AppendFrame(nil, frame); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded to %x, not %x", vector.Name, got, want)
		}
		got, err := NewReader(bytes.NewReader(want)).Frame()
		if err != nil || got.Type != frame.Type || got.Stream != frame.Stream || !bytes.Equal(got.Payload, payload) {
			t.Errorf("%s: decoded to %v, %v", vector.Name, got, err)
		}
	}
}

func at(offset int64) *int64 { return &offset }

func TestPlacesInTheSharedMemory(t *testing.T) {
	all := readVectors(t)
	for _, vector := range all.Extents {
		payload := unhex(t, vector.Payload)
		want := Place{Channel: vector.Channel, Offset: vector.Offset, Length: vector.Length}
		if got, err := ParseDataAt(payload); err != nil || got != want {
			t.Errorf("%s: %v, %v", vector.Name, got, err)
		}
		whole := AppendFrame(nil, Frame{Type: DataAt, Stream: 7, Payload: payload})
		if got := AppendDataAt(nil, 7, want); !bytes.Equal(got, whole) {
			t.Errorf("%s: encoded to %x", vector.Name, got)
		}
	}
	for _, vector := range all.BadExtents {
		if _, err := ParseDataAt(unhex(t, vector.Payload)); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", vector.Name, err)
		}
	}
}

func TestBrokenHeadersAreRefused(t *testing.T) {
	all := readVectors(t)
	for _, vector := range all.BrokenHeaders {
		if _, err := NewReader(bytes.NewReader(unhex(t, vector.Hex))).Frame(); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", vector.Name, err)
		}
	}
	for _, vector := range all.WholeHeaders {
		if _, err := NewReader(bytes.NewReader(unhex(t, vector.Hex))).Frame(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", vector.Name, err)
		}
	}
}

// eventsOf reads a stream to its end, as a connection does.
func eventsOf(source io.Reader) []string {
	reader := NewReader(source)
	var events []string
	isConnected := false
	for {
		if !isConnected {
			preamble, err := reader.Preamble()
			if err != nil {
				return events
			}
			events = append(events, fmt.Sprintf("preamble %x %d", preamble.Nonce, preamble.Generation))
			isConnected = true
			continue
		}
		frame, err := reader.Frame()
		switch {
		case errors.Is(err, ErrBroken):
			events = append(events, "broken")
			isConnected = false
		case err != nil:
			return events
		default:
			events = append(events, fmt.Sprintf("frame %d %d %x", frame.Type, frame.Stream, frame.Payload))
		}
	}
}

func TestStreamsMeanTheSameInAnyPieces(t *testing.T) {
	for _, vector := range readVectors(t).GuestReads {
		var want []string
		for _, event := range vector.Events {
			switch {
			case event.Preamble != nil:
				want = append(want, fmt.Sprintf("preamble %s %d", event.Preamble.Nonce, event.Preamble.Generation))
			case event.Frame != nil:
				want = append(want, fmt.Sprintf("frame %d %d %s",
					typeNames[event.Frame.Type], event.Frame.Stream, event.Frame.Payload))
			default:
				want = append(want, "broken")
			}
		}
		stream := unhex(t, vector.Hex)
		for name, source := range map[string]io.Reader{
			"at once": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
			"by halves":      iotest.HalfReader(bytes.NewReader(stream)),
			"with the error": iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			if got := eventsOf(source); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s:\n got %q\nwant %q", vector.Name, name, got, want)
			}
		}
	}
}

func TestZerosEndAHalfFrame(t *testing.T) {
	all := readVectors(t)
	connection := unhex(t, all.GuestReads[0].Hex)
	for _, half := range []string{"016268740000000300040000", "02626874000000030000800100", "01", "b44248"} {
		stream := append(append([]byte{}, connection...), unhex(t, half)...)
		stream = append(append(stream, make([]byte, FrameBytesMax)...), connection...)
		events := eventsOf(bytes.NewReader(stream))
		if last := events[len(events)-2:]; !reflect.DeepEqual(last, eventsOf(bytes.NewReader(connection))) {
			t.Errorf("after %s the connection was read as %q", half, last)
		}
	}
}

func TestTheGuestPreambleIsEncoded(t *testing.T) {
	vector := readVectors(t).GuestPreamble
	preamble := Preamble{Generation: vector.Generation}
	copy(preamble.Nonce[:], unhex(t, vector.Nonce))
	if got := AppendGuestPreamble(nil, preamble); !bytes.Equal(got, unhex(t, vector.Hex)) {
		t.Errorf("encoded to %x", got)
	}
}

// sameJSON compares two texts by their meaning.
func sameJSON(t *testing.T, name string, got, want []byte) {
	t.Helper()
	var gotValue, wantValue any
	if err := json.Unmarshal(got, &gotValue); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := json.Unmarshal(want, &wantValue); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !reflect.DeepEqual(gotValue, wantValue) {
		t.Errorf("%s: %s is not %s", name, got, want)
	}
}

func TestRequestsAreUnderstood(t *testing.T) {
	for _, vector := range readVectors(t).Requests {
		op, err := Operation(vector.JSON)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		switch op {
		case "personalise":
			var request Personalise
			if err := Decode(vector.JSON, &request); err != nil {
				t.Errorf("%s: %v", vector.Name, err)
			}
			withOp := struct {
				Op string `json:"op"`
				Personalise
			}{op, request}
			sameJSON(t, vector.Name, Encode(withOp), vector.JSON)
		case "exec":
			var request Exec
			if err := Decode(vector.JSON, &request); err != nil || len(request.Argv) == 0 {
				t.Errorf("%s: %+v, %v", vector.Name, request, err)
			}
			if request.Stdin {
				withOp := struct {
					Op string `json:"op"`
					Exec
				}{op, request}
				sameJSON(t, vector.Name, Encode(withOp), vector.JSON)
			}
		}
	}
}

func TestRequestsOfStreamsAreUnderstood(t *testing.T) {
	text, size, no := func(text string) *string { return &text }, int64(5), false
	yes, terminal := true, Size{Rows: 24, Cols: 80}
	want := map[string]any{
		"refresh": &Refresh{UnixNs: 1700000000000000001, Entropy: []byte{
			0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}},
		"session with everything": &SessionOpen{Name: text("init"), Attach: &yes, Exec: Exec{
			Argv: []string{"vi", "a b"}, Env: map[string]string{"A": "b"}, Cwd: "/tmp", User: "root",
			Terminal: &Terminal{Size: terminal, Term: "xterm"},
		}},
		"session alone":                         &SessionOpen{Attach: &no, Exec: Exec{Terminal: &Terminal{Size: terminal}}},
		"attach":                                &SessionAttach{Session: "s1", Size: &terminal},
		"attach to the newest":                  &SessionAttach{Size: &terminal},
		"kill a session":                        &SessionKill{Session: "s1", Signal: "HUP"},
		"read a session":                        &SessionKill{Session: "init"},
		"read a file":                           &FileRead{Path: "a\nb"},
		"read a part of a file":                 &FileRead{Path: "/x", Offset: 4294967296, Limit: at(0)},
		"read a file through the shared memory": &FileRead{Path: "/x", Shared: at(1048576)},
		"pack through the shared memory":        &ArchiveRead{Path: "/x", Shared: at(1310720)},
		"write a file":                          &FileWrite{Path: "/ü", Mode: text("0644"), Size: &size, Parents: true},
		"write a file of any size":              &FileWrite{Path: "x"},
		"write a file with attributes":          &FileWrite{Path: "x", Attributes: map[string][]byte{"user.a": {255}}},
		"change attributes":                     &FileAttributes{Path: "/x", Set: map[string][]byte{"user.a": {255}}, Remove: []string{"user.b"}},
		"list":                                  &FileNamed{Path: "/x"},
		"stat":                                  &FileNamed{Path: "/x"},
		"remove":                                &FileNamed{Path: "/x", Recursive: true},
		"mkdir":                                 &FileMkdir{Path: "/x", Parents: true, Mode: text("0755")},
		"move":                                  &FileMove{From: "/x", To: "/y"},
		"watch a directory tree":                &FileWatch{Path: "/x", Recursive: true},
		"read a watch":                          &FileWatchRead{Watch: "w0f", After: 4294967296},
		"wait for a watch":                      &FileWatchRead{Watch: "w0f", Wait: true},
		"remove a watch":                        &FileWatchRead{Watch: "w0f"},
		"pack with holes":                       &ArchiveRead{Path: "/x", Sparse: true},
		"pack":                                  &ArchiveRead{Path: "/x"},
		"pack exactly":                          &ArchiveRead{Path: "/x", Exact: true},
		"unpack exactly, under another name":    &ArchiveWrite{Path: "/x", Exact: true, Root: text("")},
		"unpack":                                &FileNamed{Path: "/x"},
		"dial":                                  &Dial{Port: 3000},
		"set services": &ServiceSet{Services: []Service{{
			Name: "web", Argv: []string{"/bin/sh", "-c", "npm start"}, Restart: RestartAlways, After: []string{}, Program: "npm",
		}}},
	}
	for _, vector := range readVectors(t).Requests {
		wanted, isOurs := want[vector.Name]
		if !isOurs {
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

var (
	testFile = FileInfo{
		Name: "a", Size: 5, Mode: "0644", Type: "file", Owner: "lohar", Group: "lohar", ModifiedUnixMs: 1700000000000,
	}
	testLink = FileInfo{
		Name: "l\ufffd", NameIsLossy: true, Size: 1, Mode: "0777", Type: "symlink", Owner: "1234", Group: "root",
		ModifiedUnixMs: -1, Target: "a",
	}
)

func ofVersion(file FileInfo) FileInfo {
	file.Version, file.Attributes = "c-17979cfe362a0000-5", map[string][]byte{"user.a": {255}}
	file.Allocated = at(0)
	return file
}

func failingService() ServiceState {
	process, retryMs := "p7", int64(1600)
	return ServiceState{
		Name: "web", Argv: []string{"sh"}, Restart: RestartAlways, State: ServiceBackingOff, Restarts: 4, Process: &process,
		Ended: &Ended{ExitCode: 3, Reason: EndExited}, IsFailing: true, RetryMs: &retryMs,
	}
}

func TestMessagesOfStreamsAreEncoded(t *testing.T) {
	name := "init"
	messages := []any{
		SessionMessage{Session: SessionName{ID: "s1", Name: &name, Argv: []string{"vi"}}}, File{File: testFile},
		struct {
			Entries []FileInfo `json:"entries"`
		}{[]FileInfo{testFile, testLink}},
		Connected{},
		SessionNotice{Ended: SessionExit{Session: "s1", Name: "init", Exited: Exited{ExitCode: 3}}},
		MemoryNotice{MemoryKill: MemoryKill{Pid: 412, Name: "python3", Session: 398, AnonKib: 421888, FileKib: 4, ShmemKib: 8,
			MemoryKib: 501000, UnixMs: 1700000000000}},
		ServiceNotice{ServiceFailing: failingService()},
	}
	for index, vector := range readVectors(t).Messages {
		if got := string(Encode(messages[index])); got != vector.Text {
			t.Errorf("%s: %s", vector.Name, got)
		}
	}
}

func TestBadRequestsAreInvalid(t *testing.T) {
	for _, vector := range readVectors(t).BadRequests {
		_, err := Operation([]byte(vector.Text))
		var coded *Error
		if !errors.As(err, &coded) || coded.Code != Invalid {
			t.Errorf("%s: %v", vector.Name, err)
		}
	}
}

func TestMessagesToAProcessAreUnderstood(t *testing.T) {
	want := []ToProcess{{Signal: "INT"}, {Resize: &Size{Rows: 50, Cols: 132}}}
	for index, vector := range readVectors(t).ToProcess {
		var message ToProcess
		if err := Decode(vector.JSON, &message); err != nil || !reflect.DeepEqual(message, want[index]) {
			t.Errorf("%s: %+v, %v", vector.Name, message, err)
		}
	}
}

func TestResultsAreEncoded(t *testing.T) {
	kill, hangUp, name, code := "KILL", "HUP", "init", 0
	results := []Result{
		{OK: Empty{}}, {OK: Exited{ExitCode: 7}}, {OK: Exited{ExitCode: 137, Signal: &kill}},
		{OK: Pong{Agent: "lohar", Version: "1.0.0", Personalised: true, BootFailures: []string{}}},
		{OK: Pong{Agent: "lohar", Version: "1.0.0", Personalised: true, BootFailures: []string{}, RootReadOnly: true,
			Repair: &Repair{ExitCode: 1, Output: "FILE SYSTEM WAS MODIFIED"}}},
		{OK: Personalised{BootID: "b", Image: true}}, {OK: Personalised{BootID: "b", Pending: true}},
		{OK: CloneStarted{Hooks: []HookFailure{{Hook: "10-keys", Reason: "it exited with 3", Output: "no key\n"}}}},
		{OK: Personalised{BootID: "b"}}, {Error: Errorf(NotFound, "no program %q", "x")},
		{Error: Errorf(Invalid, "no user %q", "x").Because(NoUser)},
		{OK: SessionOpened{Session: "s1"}}, {OK: SessionLeft{State: StateDetached}}, {OK: SessionLeft{State: StateTakenOver}},
		{OK: SessionEnded{State: StateEnded, Exited: Exited{ExitCode: 129, Signal: &hangUp}}},
		{OK: Sessions{Sessions: []Session{
			{SessionName: SessionName{ID: "s1", Argv: []string{"bash", "-l"}}, Pid: 7, State: StateRunning, Attached: true,
				CreatedUnixMs: 1700000000000},
			{SessionName: SessionName{ID: "s2", Name: &name, Argv: []string{"x"}}, Pid: 8, State: StateEnded, ExitCode: &code,
				CreatedUnixMs: 1},
		}}},
		{OK: FileBytes{Bytes: 5}}, {OK: Listed{Entries: 2}}, {OK: File{File: ofVersion(testFile)}}, {OK: Archived{Entries: 2, Bytes: 5}},
		{OK: FileWatching{Watch: "w0f"}},
		{OK: FileEvents{Next: 9, Events: []FileEvent{
			{Type: FileCreated, Path: "a", IsDirectory: true}, {Type: FileRenamed, Path: "a", To: "b/c", IsDirectory: true},
			{Type: EventsLost, Path: ".", Reason: "r"},
		}}},
		{OK: FileEvents{Next: 9, Events: []FileEvent{}, Ended: "it is gone"}},
		{OK: Ports{Ports: []Port{{Port: 3000, Address: "::1"}}}},
		{OK: NextTimer{DueMs: at(19500)}}, {OK: NextTimer{}}, {OK: Services{Services: []ServiceState{failingService()}}},
	}
	for index, vector := range readVectors(t).Results {
		if got := string(Encode(results[index])); got != vector.Text {
			t.Errorf("%s: %s", vector.Name, got)
		}
	}
}

// The host's requests must take the fast path: a clone's first moment can afford no other.
func TestTheHostsRequestsAreReadWithoutReflection(t *testing.T) {
	targets := map[string]any{
		"personalise with a network": &Personalise{}, "personalise alone": &Personalise{},
		"exec with what is required": &Exec{}, "refresh": &Refresh{}, "quiesce": &Quiesce{},
	}
	for _, vector := range readVectors(t).Requests {
		target, isPlain := targets[vector.Name]
		if !isPlain {
			continue
		}
		delete(targets, vector.Name)
		var compact bytes.Buffer
		if err := json.Compact(&compact, vector.JSON); err != nil {
			t.Fatal(err)
		}
		if !readPlain(compact.Bytes(), target) || readPlainOperation(compact.Bytes()) == "" {
			t.Errorf("%s: %s", vector.Name, compact.String())
		}
	}
	if len(targets) > 0 {
		t.Errorf("no vectors for %v", targets)
	}
}

func TestAnOperationIsBelievedOnlyWhenAllOfTheRequestIsPlain(t *testing.T) {
	for text, want := range map[string]string{
		`{"op":"quiesce"}`: "quiesce", `{"op":"quiesce"} `: "", `{"op":"quiesce","op":"exec"}`: "",
		`{"op":"refresh",`: "refresh", `{"op":"ping"}`: "ping", `{"op":"watch"}`: "watch", `{"op":"ping",`: "",
		`{"op":""}`: "", `{"op": "exec","argv":[]}`: "",
	} {
		if got := readPlainOperation([]byte(text)); got != want {
			t.Errorf("%s: %q, not %q", text, got, want)
		}
	}
}

func TestALongErrorFitsAFrame(t *testing.T) {
	err := Errorf(Invalid, "no program %q", bytes.Repeat([]byte{0xe2, 0x82, 0xac, 1}, 200000))
	if length := len(Encode(Result{Error: err})); length > JSONBytesMax {
		t.Errorf("the result has %d bytes", length)
	}
}
