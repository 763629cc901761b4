// The JSON messages inside the frames; see frame.go for the twins of this file.

package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Code is one of the nine error codes that the whole product shares.
type Code string

// The codes that the agent uses.
const (
	Invalid       Code = "invalid"
	Forbidden     Code = "forbidden"
	NotFound      Code = "not_found"
	Conflict      Code = "conflict"
	TooLarge      Code = "too_large"
	LimitExceeded Code = "limit_exceeded"
	Unavailable   Code = "unavailable"
	Internal      Code = "internal"
)

// Error is an error that crosses the wire.
type Error struct {
	Code    Code   `json:"code"`
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message"`
}

// Reason names the exact cause of an error, so that nobody has to read its message.
type Reason string

// The reasons why a command could not start.
const (
	NoUser        Reason = "no_user"
	NoDirectory   Reason = "no_directory"
	NoProgram     Reason = "no_program"
	NotExecutable Reason = "not_executable"
	NoInterpreter Reason = "no_interpreter"
	WrongFormat   Reason = "wrong_format"
	Denied        Reason = "denied"
	TooLong       Reason = "too_long"
	BadText       Reason = "bad_text"
	NoResources   Reason = "no_resources"
	NotStarted    Reason = "not_started"
)

// The reasons why a key starts nothing.
const (
	KeyReused Reason = "key_reused"
	Forgotten Reason = "forgotten"
	Rebooted  Reason = "rebooted"
)

func (e *Error) Error() string { return e.Message }

// messageBytesMax keeps an error that quotes its request within a frame.
const messageBytesMax = 4096

// Errorf makes an Error.
func Errorf(code Code, format string, values ...any) *Error {
	message := fmt.Sprintf(format, values...)
	if len(message) > messageBytesMax {
		message = strings.ToValidUTF8(message[:messageBytesMax], "") + "…"
	}
	return &Error{Code: code, Message: message}
}

// Because adds the reason.
func (e *Error) Because(reason Reason) *Error {
	e.Reason = reason
	return e
}

// Result is the payload of the guest's close frame: exactly one of the two is set.
type Result struct {
	OK    any    `json:"ok,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// Empty is the answer of an operation without results.
type Empty struct{}

// Pong answers ping.
type Pong struct {
	Agent        string   `json:"agent"`
	Version      string   `json:"version"`
	Personalised bool     `json:"personalised"`
	BootFailures []string `json:"boot_failures"`
	RootReadOnly bool     `json:"root_read_only,omitempty"`
	Repair       *Repair  `json:"repair,omitempty"`
}

// Repair describes the repair of the root filesystem at a boot for that purpose.
type Repair struct {
	ExitCode int    `json:"exit_code"`
	Output   string `json:"output"`
}

// Personalise gives a fresh clone its identity.
type Personalise struct {
	Entropy   []byte            `json:"entropy"`
	UnixNs    int64             `json:"unix_ns,string"`
	Hostname  string            `json:"hostname"`
	MachineID string            `json:"machine_id"`
	Env       map[string]string `json:"env"`
	Network   *Network          `json:"network"`
	GrowDisk  bool              `json:"grow_disk"`
	IsNew     bool              `json:"is_new,omitempty"`
	Image     *Image            `json:"image,omitempty"`
}

// Image is what an image of others says about its commands.
type Image struct {
	User    string            `json:"user"`
	Workdir string            `json:"workdir"`
	Env     map[string]string `json:"env"`
}

// Refresh sends fresh randomness and the time to a guest that was paused or restored.
type Refresh struct {
	Entropy []byte `json:"entropy"`
	UnixNs  int64  `json:"unix_ns,string"`
}

// NextTimer answers next_timer. Null means that no program waits for a timer.
type NextTimer struct {
	DueMs *int64 `json:"due_ms"`
}

// Trim discards deleted blocks within a time limit.
type Trim struct {
	BudgetMs     int  `json:"budget_ms"`
	UntouchedMib *int `json:"untouched_mib"`
}

// Quiesce precedes a save. UntouchedMib is the memory that takes none of the host; null if the host does not tell.
// With Hold every program stands still until clone_start.
type Quiesce struct {
	UntouchedMib *int `json:"untouched_mib"`
	Hold         bool `json:"hold"`
}

// Network is the guest's place in its network.
type Network struct {
	MAC     string   `json:"mac"`
	Address string   `json:"address"`
	Prefix  int      `json:"prefix"`
	Gateway string   `json:"gateway"`
	DNS     []string `json:"dns"`
	MTU     int      `json:"mtu"`
}

// Personalised answers personalise. Pending tells that a clone needs clone_start.
type Personalised struct {
	BootID  string `json:"boot_id"`
	Pending bool   `json:"pending,omitempty"`
	Image   bool   `json:"image,omitempty"`
}

// CloneStarted answers clone_start with the hooks that failed.
type CloneStarted struct {
	Hooks []HookFailure `json:"failed_hooks"`
}

// HookFailure describes a failed hook, with the end of its output.
type HookFailure struct {
	Hook   string `json:"hook"`
	Reason string `json:"reason"`
	Output string `json:"output"`
}

// Exec runs a command.
type Exec struct {
	Argv     []string          `json:"argv"`
	Env      map[string]string `json:"env"`
	Cwd      string            `json:"cwd"`
	User     string            `json:"user"`
	Stdin    bool              `json:"stdin"`
	Terminal *Terminal         `json:"tty"`
}

// Size is the size of a terminal.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Terminal asks for a terminal.
type Terminal struct {
	Size
	Term string `json:"term"`
}

// Started is sent when the command runs.
type Started struct {
	Started Pid `json:"started"`
}

// Pid names a process of the guest.
type Pid struct {
	Pid int `json:"pid"`
}

// ToProcess is a message from the host to a running command.
type ToProcess struct {
	Signal string `json:"signal"`
	Scope  string `json:"scope"`
	By     string `json:"by"`
	Resize *Size  `json:"resize"`
}

// Exited answers exec. Signal is null for a command that exited normally.
type Exited struct {
	ExitCode int     `json:"exit_code"`
	Signal   *string `json:"signal"`
}

// Operation returns the name of the operation that an open frame requests.
func Operation(payload []byte) (string, error) {
	if name := readPlainOperation(payload); name != "" {
		return name, nil
	}
	var request struct {
		Op string `json:"op"`
	}
	if err := Decode(payload, &request); err != nil {
		return "", err
	}
	if request.Op == "" {
		return "", Errorf(Invalid, "the request names no operation")
	}
	return request.Op, nil
}

// Decode reads JSON. Its error is an *Error with the code invalid.
func Decode(payload []byte, target any) error {
	if readPlain(payload, target) {
		return nil
	}
	if !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{")) {
		return Errorf(Invalid, "the message is not a JSON object")
	}
	if err := json.Unmarshal(payload, target); err != nil {
		return Errorf(Invalid, "the message cannot be read: %v", err)
	}
	return nil
}

// Encode writes JSON. It receives only types of this file, which always encode.
func Encode(value any) []byte {
	if encoded := encodePlain(value); encoded != nil {
		return encoded
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return encoded
}
