// The JSON messages of processes; the twin of src/guest/process-messages.ts.

package wire

import (
	"encoding/json"
	"strconv"
)

// Offsets are positions in the output of a process, in bytes since its beginning.
type Offsets struct {
	Stdout int64 `json:"stdout"`
	Stderr int64 `json:"stderr"`
}

// ProcessStart starts a process, or finds the one that was started with its key.
type ProcessStart struct {
	Exec
	Name         *string  `json:"name"`
	Key          *string  `json:"key"`
	ElapsedMs    int64    `json:"elapsed_ms"`
	From         *Offsets `json:"from"`
	OnDisconnect string   `json:"on_disconnect"`
	GraceMs      int64    `json:"grace_ms"`
	RetainMs     int64    `json:"retain_ms"`
	RingBytes    int64    `json:"ring_bytes"`
	TimeoutMs    *int64   `json:"timeout_ms"`
	Attach       *bool    `json:"attach"`
}

// ProcessAttach attaches to a process as its driver or as a watcher.
type ProcessAttach struct {
	Process string   `json:"process"`
	Mode    string   `json:"mode"`
	From    *Offsets `json:"from"`
	SinceMs *int64   `json:"since_ms"`
	Follow  *bool    `json:"follow"`
	Size    *Size    `json:"tty"`
	Writer  *string  `json:"writer"`
}

// ProcessNamed names a process by id or name.
type ProcessNamed struct {
	Process string `json:"process"`
}

// ProcessSignal sends a signal to a process.
type ProcessSignal struct {
	Process string `json:"process"`
	Signal  string `json:"signal"`
	Scope   string `json:"scope"`
	By      string `json:"by"`
}

// ProcessInput sends input from another stream than the driver's.
type ProcessInput struct {
	Process string `json:"process"`
	At      *int64 `json:"at"`
	Close   bool   `json:"close"`
}

// ProcessResize sets the size of a terminal.
type ProcessResize struct {
	Process string `json:"process"`
	Size
}

// Process is the record of a process.
type Process struct {
	ID            string        `json:"id"`
	Name          *string       `json:"name"`
	Pid           int           `json:"pid"`
	Argv          []string      `json:"argv"`
	User          string        `json:"user"`
	Cwd           string        `json:"cwd"`
	HasTerminal   bool          `json:"tty"`
	State         string        `json:"state"`
	Ended         *Ended        `json:"ended"`
	OnDisconnect  string        `json:"on_disconnect"`
	Driven        bool          `json:"driven"`
	Watchers      int           `json:"watchers"`
	InputOpen     bool          `json:"input_open"`
	CreatedUnixMs int64         `json:"created_unix_ms"`
	EndedUnixMs   *int64        `json:"ended_unix_ms"`
	Output        ProcessOutput `json:"output"`
}

// ProcessOutput describes what is kept of a process's output.
type ProcessOutput struct {
	Stdout Kept `json:"stdout"`
	Stderr Kept `json:"stderr"`
}

// Kept are the offsets of the oldest kept byte and of the next one.
type Kept struct {
	First int64 `json:"first"`
	Total int64 `json:"total"`
}

// ByClient is the author of a signal that the host sends without naming one.
const ByClient = "client"

// The values of on_disconnect, mode and scope.
const (
	DisconnectKill  = "kill"
	DisconnectKeep  = "keep"
	ModeDrive       = "drive"
	ModeWatch       = "watch"
	ScopeSession    = "session"
	ScopeForeground = "foreground"
	ScopeGroup      = "group"
)

// ProcessMessage is the first message to a client.
type ProcessMessage struct {
	Process Process `json:"process"`
	IsNew   bool    `json:"is_new"`
	From    Offsets `json:"from"`
	Input   int64   `json:"input"`
	Written *int64  `json:"written,omitempty"`
}

// ProcessSkipped tells a client how many bytes it has missed.
type ProcessSkipped struct {
	Skipped Offsets `json:"skipped"`
}

// ProcessShow is text for the client's terminal that is no output of the process.
type ProcessShow struct {
	Show string `json:"show"`
}

// ProcessStarted answers a start without a client.
type ProcessStarted struct {
	Process Process `json:"process"`
	IsNew   bool    `json:"is_new"`
}

// ProcessFound answers process_get and process_wait.
type ProcessFound struct {
	Process Process `json:"process"`
}

// ProcessState answers a client that gets no more output.
type ProcessState struct {
	State string `json:"state"`
	Ended *Ended `json:"ended,omitempty"`
}

// Processes is a part of the list of processes, and ProcessCount its end.
type Processes struct {
	Processes []Process `json:"processes"`
}

// ProcessCount answers process_list.
type ProcessCount struct {
	Processes int `json:"processes"`
}

// ProcessNotice tells a watcher of a process's end.
type ProcessNotice struct {
	ProcessEnded ProcessEnd `json:"process_ended"`
}

// ProcessEnd is the end of a process, for a host that may know no more of it.
type ProcessEnd struct {
	Process string  `json:"process"`
	Name    *string `json:"name"`
	Program string  `json:"program"`
	Pid     int     `json:"pid"`
	Ended   Ended   `json:"ended"`
}

// InputTaken answers process_input.
type InputTaken struct {
	Input int64 `json:"input"`
}

// The writers below save a command's start and end the code of encoding/json; see plain.go.

func (m ProcessMessage) append(text []byte) []byte {
	text = m.Process.append(append(text, `{"process":`...))
	text = strconv.AppendBool(append(text, `,"is_new":`...), m.IsNew)
	text = strconv.AppendInt(append(text, `,"from":{"stdout":`...), m.From.Stdout, 10)
	text = strconv.AppendInt(append(text, `,"stderr":`...), m.From.Stderr, 10)
	text = strconv.AppendInt(append(text, `},"input":`...), m.Input, 10)
	if m.Written != nil {
		text = strconv.AppendInt(append(text, `,"written":`...), *m.Written, 10)
	}
	return append(text, '}')
}

func (s ProcessState) append(text []byte) []byte {
	text = appendText(append(text, `{"state":`...), s.State)
	if s.Ended != nil {
		text = s.Ended.append(append(text, `,"ended":`...))
	}
	return append(text, '}')
}

func (p *Process) append(text []byte) []byte {
	text = appendText(append(text, `{"id":`...), p.ID)
	text = appendTextOrNull(append(text, `,"name":`...), p.Name)
	text = strconv.AppendInt(append(text, `,"pid":`...), int64(p.Pid), 10)
	text = append(text, `,"argv":[`...)
	for i, argument := range p.Argv {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendText(text, argument)
	}
	text = appendText(append(text, `],"user":`...), p.User)
	text = appendText(append(text, `,"cwd":`...), p.Cwd)
	text = strconv.AppendBool(append(text, `,"tty":`...), p.HasTerminal)
	text = appendText(append(text, `,"state":`...), p.State)
	text = append(text, `,"ended":`...)
	if p.Ended == nil {
		text = append(text, "null"...)
	} else {
		text = p.Ended.append(text)
	}
	text = appendText(append(text, `,"on_disconnect":`...), p.OnDisconnect)
	text = strconv.AppendBool(append(text, `,"driven":`...), p.Driven)
	text = strconv.AppendInt(append(text, `,"watchers":`...), int64(p.Watchers), 10)
	text = strconv.AppendBool(append(text, `,"input_open":`...), p.InputOpen)
	text = strconv.AppendInt(append(text, `,"created_unix_ms":`...), p.CreatedUnixMs, 10)
	text = append(text, `,"ended_unix_ms":`...)
	if p.EndedUnixMs == nil {
		text = append(text, "null"...)
	} else {
		text = strconv.AppendInt(text, *p.EndedUnixMs, 10)
	}
	text = p.Output.Stdout.append(append(text, `,"output":{"stdout":`...))
	return append(p.Output.Stderr.append(append(text, `,"stderr":`...)), "}}"...)
}

func (k Kept) append(text []byte) []byte {
	text = strconv.AppendInt(append(text, `{"first":`...), k.First, 10)
	return append(strconv.AppendInt(append(text, `,"total":`...), k.Total, 10), '}')
}

func (e *Ended) append(text []byte) []byte {
	text = strconv.AppendInt(append(text, `{"exit_code":`...), int64(e.ExitCode), 10)
	text = appendTextOrNull(append(text, `,"signal":`...), e.Signal)
	text = appendText(append(text, `,"reason":`...), string(e.Reason))
	text = appendTextOrNull(append(text, `,"by":`...), e.By)
	text = append(text, `,"detail":`...)
	if e.Detail == nil {
		return append(text, "null}"...)
	}
	detail, err := json.Marshal(e.Detail)
	if err != nil {
		panic(err)
	}
	return append(append(text, detail...), '}')
}

func appendTextOrNull(text []byte, value *string) []byte {
	if value == nil {
		return append(text, "null"...)
	}
	return appendText(text, *value)
}

func appendText(text []byte, value string) []byte {
	for i := 0; i < len(value); i++ {
		if c := value[i]; !isPlain(c) || c == '<' || c == '>' || c == '&' {
			encoded, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			return append(text, encoded...)
		}
	}
	return append(append(append(text, '"'), value...), '"')
}
