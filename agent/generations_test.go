// The recorded conversations of each generation, with their host's part played to this agent: it may have to answer a
// daemon of an earlier build, as after a downgrade.

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

type recordedStep struct {
	From    string
	Type    string
	Stream  uint32
	JSON    any
	Channel byte
	Hex     string
}

type recordedConversation struct {
	Name         string
	Personalised bool
	DataVaries   bool `json:"data_varies"`
	Steps        []recordedStep
}

type recordedGeneration struct {
	Generation uint16
	Values     struct {
		Directory, User string
		Port            int
		Personalise     json.RawMessage
	}
	Files         map[string]string
	Conversations []recordedConversation
}

// differsByHost names what the recording machine, its moment or its users decide.
var differsByHost = map[string]bool{
	"pid": true, "version": true, "boot_id": true, "modified_unix_ms": true, "created_unix_ms": true, "due_ms": true,
	"owner": true, "group": true, "uid": true, "gid": true, "message": true, "user": true, "watch": true,
}

// ofTheMoment names what a process's record has according to how far it is.
var ofTheMoment = map[string]bool{
	"state": true, "ended": true, "driven": true, "watchers": true, "input_open": true, "output": true,
	"ended_unix_ms": true,
}

func TestEachRecordedConversationIsAnsweredAsThen(t *testing.T) {
	paths, err := filepath.Glob("../protocol/generations/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no generations: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var recorded recordedGeneration
		if err := json.Unmarshal(text, &recorded); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, conversation := range recorded.Conversations {
			conversation := conversation
			t.Run(fmt.Sprintf("%d/%s", recorded.Generation, conversation.Name), func(t *testing.T) {
				newReplay(t, recorded).play(conversation)
			})
		}
	}
}

type replay struct {
	*host
	texts *strings.Replacer
	data  map[uint32]map[byte]string
	want  map[uint32]map[byte]string
	port  int
	// watches has our ids of watches by the recorded ones.
	watches map[string]string
}

func newReplay(t *testing.T, recorded recordedGeneration) *replay {
	directory := t.TempDir()
	for name, text := range recorded.Files {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if strings.HasSuffix(t.Name(), "/file_attributes") &&
		syscall.Setxattr(directory, "user.lohar", []byte("x"), 0) == syscall.ENOTSUP {
		t.Skip("the file system of the tests has no extended attributes")
	}
	port := echoPort(t)
	old := recorded.Values
	h := connectAs(t, recorded.Generation)
	return &replay{
		host: h, port: port, data: map[uint32]map[byte]string{}, want: map[uint32]map[byte]string{},
		watches: map[string]string{},
		texts: strings.NewReplacer(
			old.Directory, directory,
			fmt.Sprintf(`"user":%q`, old.User), fmt.Sprintf(`"user":%q`, ownName),
			fmt.Sprintf(`"owner":%q`, old.User), fmt.Sprintf(`"owner":%q`, ownName),
			fmt.Sprintf(`"port":%d`, old.Port), fmt.Sprintf(`"port":%d`, port),
		),
	}
}

// connectAs meets the agent as a host of a generation.
func connectAs(t *testing.T, generation uint16) *host {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "shared"))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(2 << 20); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	h := &host{
		t: t, agent: testAgent(), conn: ours, reader: wire.NewReader(ours),
		served: make(chan error, 1), queued: map[uint32][]wire.Frame{},
	}
	if h.agent.shared, err = mapFile(file); err != nil {
		t.Fatal(err)
	}
	go func() {
		h.served <- h.agent.serve(theirs)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	h.write(hostPreamble(generation))
	h.awaitPreambleOf(generation)
	return h
}

// echoPort listens at a port that sends back what it gets.
func echoPort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 1024)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					_, _ = conn.Write(buffer[:n])
				}
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func (r *replay) play(conversation recordedConversation) {
	r.t.Helper()
	if conversation.Personalised {
		r.personalise()
	}
	for _, step := range conversation.Steps {
		raw, err := hex.DecodeString(step.Hex)
		if err != nil {
			r.t.Fatal(err)
		}
		payload := raw[12:]
		switch {
		case step.From == "host":
			if step.Type == "open" {
				payload = []byte(r.texts.Replace(string(payload)))
				for recorded, ours := range r.watches {
					payload = bytes.ReplaceAll(payload, []byte(recorded), []byte(ours))
				}
			}
			r.send(wire.Type(raw[0]), step.Stream, payload)
		case step.Type == "data":
			note(r.want, step.Stream, payload)
			for !conversation.DataVaries && r.isBehind(step.Stream, payload[0]) {
				r.take(step.Stream)
			}
		case step.Type == "message" || step.Type == "close":
			got := r.take(step.Stream)
			for got.Type == wire.Data || got.Type == wire.Window || got.Type == wire.End {
				got = r.take(step.Stream)
			}
			if got.Type != wire.Type(raw[0]) {
				r.t.Fatalf("in place of the %s %v there is a frame of type %d: %s", step.Type, step.JSON, got.Type, got.Payload)
			}
			var answer any
			if err := json.Unmarshal(got.Payload, &answer); err != nil {
				r.t.Fatal(err)
			}
			if why := r.differs(step.JSON, answer); why != "" {
				r.t.Fatalf("recorded %v, answered %s: %s", step.JSON, got.Payload, why)
			}
		}
	}
	if !conversation.DataVaries && !reflect.DeepEqual(r.want, r.data) {
		r.t.Fatalf("recorded %.200q, got %.200q", r.want, r.data)
	}
}

func (r *replay) take(stream uint32) wire.Frame {
	r.t.Helper()
	frame := r.frame(stream)
	if frame.Type == wire.Data {
		note(r.data, stream, frame.Payload)
	}
	return frame
}

func (r *replay) isBehind(stream uint32, channel byte) bool {
	return len(r.data[stream][channel]) < len(r.want[stream][channel])
}

func note(all map[uint32]map[byte]string, stream uint32, payload []byte) {
	if all[stream] == nil {
		all[stream] = map[byte]string{}
	}
	all[stream][payload[0]] += string(payload[1:])
}

// differs says where an answer lacks something of the recorded one. It may have more.
func (r *replay) differs(recorded, answer any) string {
	switch recorded := recorded.(type) {
	case map[string]any:
		object, isObject := answer.(map[string]any)
		if !isObject {
			return fmt.Sprintf("%v is no object", answer)
		}
		_, isProcess := recorded["on_disconnect"]
		for key, value := range recorded {
			other, isThere := object[key]
			if ours, isText := other.(string); key == "watch" && isText {
				r.watches[fmt.Sprint(value)] = ours
			}
			isSizeOfDirectory := key == "size" && recorded["type"] == "directory"
			switch {
			case !isThere:
				return key + " is missing"
			case isProcess && ofTheMoment[key]:
			case key == "ports":
				if !strings.Contains(fmt.Sprint(other), "port:"+strconv.Itoa(r.port)) {
					return "the port is missing"
				}
			case differsByHost[key] || isSizeOfDirectory:
				if key != "due_ms" && reflect.TypeOf(value) != reflect.TypeOf(other) {
					return key + " is of another type"
				}
			default:
				if why := r.differs(value, other); why != "" {
					return key + ": " + why
				}
			}
		}
	case []any:
		list, isList := answer.([]any)
		if !isList || len(list) != len(recorded) {
			return fmt.Sprintf("%v is not %v", answer, recorded)
		}
		for i := range recorded {
			if why := r.differs(recorded[i], list[i]); why != "" {
				return why
			}
		}
	default:
		if !reflect.DeepEqual(recorded, answer) {
			return fmt.Sprintf("%v is not %v", answer, recorded)
		}
	}
	return ""
}

func TestAHostOfALaterGenerationIsAnsweredWithOurs(t *testing.T) {
	h := connectAs(t, 2)
	h.write(hostPreamble(60_000))
	h.awaitPreambleOf(wire.Generation)
	_ = h.conn.SetDeadline(time.Time{})
}
