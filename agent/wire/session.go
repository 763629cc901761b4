// The JSON messages of sessions; the twin of src/guest/session.ts.

package wire

// SessionOpen starts a session. Without Argv it runs the user's login shell.
type SessionOpen struct {
	Exec
	Name   *string `json:"name"`
	Attach *bool   `json:"attach"`
}

// SessionAttach attaches to a session; without Session to the newest running one without a client.
type SessionAttach struct {
	Session string `json:"session"`
	Size    *Size  `json:"tty"`
}

// SessionKill sends a signal to every process of a session.
type SessionKill struct {
	Session string `json:"session"`
	Signal  string `json:"signal"`
}

// SessionMessage is the first message to an attaching client.
type SessionMessage struct {
	Session SessionName `json:"session"`
}

// SessionName identifies a session by id and name.
type SessionName struct {
	ID   string   `json:"id"`
	Name *string  `json:"name"`
	Argv []string `json:"argv"`
}

// SessionOpened answers session_open without attach.
type SessionOpened struct {
	Session string `json:"session"`
}

// SessionLeft answers a client that is no longer attached, while the session continues.
type SessionLeft struct {
	State string `json:"state"`
}

// SessionEnded answers a client that was attached at the end.
type SessionEnded struct {
	State string `json:"state"`
	Exited
}

// SessionNotice reports to a watcher that a named session has ended.
type SessionNotice struct {
	Ended SessionExit `json:"ended"`
}

// SessionExit describes the end of a named session.
type SessionExit struct {
	Session string `json:"session"`
	Name    string `json:"name"`
	Exited
}

// Session is one entry of the list.
type Session struct {
	SessionName
	Pid           int     `json:"pid"`
	State         string  `json:"state"`
	ExitCode      *int    `json:"exit_code"`
	Signal        *string `json:"signal"`
	Attached      bool    `json:"attached"`
	CreatedUnixMs int64   `json:"created_unix_ms"`
}

// Sessions answers sessions.
type Sessions struct {
	Sessions []Session `json:"sessions"`
}

// The states of a session, as reported by lists and ends.
const (
	StateRunning   = "running"
	StateEnded     = "ended"
	StateDetached  = "detached"
	StateTakenOver = "taken_over"
	StateLeft      = "left"
)
