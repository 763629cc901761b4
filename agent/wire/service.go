// The JSON messages of services; the twin of src/guest/services.ts.

package wire

// Service is a program that the agent keeps running.
type Service struct {
	Name    string            `json:"name"`
	Argv    []string          `json:"argv"`
	Env     map[string]string `json:"env"`
	Cwd     string            `json:"cwd"`
	User    string            `json:"user"`
	Restart string            `json:"restart"`
	After   []string          `json:"after"`
	// Program must exist for a start; empty: only the first of Argv must. It names the program that a shell is to run.
	Program string `json:"program"`
}

// The restart policies.
const (
	RestartAlways    = "always"
	RestartOnFailure = "on-failure"
	RestartNever     = "never"
)

// ServiceStart starts services.
type ServiceStart struct {
	Services []Service `json:"services"`
}

// ServiceSet makes the services those given and no others.
type ServiceSet struct {
	Services []Service `json:"services"`
	By       string    `json:"by"`
}

// ServiceControl starts, stops or restarts one service. By is who asks.
type ServiceControl struct {
	Service string `json:"service"`
	Action  string `json:"action"`
	By      string `json:"by"`
}

// The actions of ServiceControl.
const (
	ServiceActionStart   = "start"
	ServiceActionStop    = "stop"
	ServiceActionRestart = "restart"
)

// ServiceState tells how a service is.
type ServiceState struct {
	Name     string   `json:"name"`
	Argv     []string `json:"argv"`
	Restart  string   `json:"restart"`
	State    string   `json:"state"`
	Restarts int      `json:"restarts"`
	// Process is the id of its running process, or else of its last one.
	Process *string `json:"process"`
	Ended   *Ended  `json:"ended"`
	// Failure is why its program could not be started last.
	Failure *string `json:"failure"`
	// FailureReason is the reason of the error in Failure, if it has one.
	FailureReason Reason `json:"failure_reason,omitempty"`
	// IsFailing: it has ended many times in a row.
	IsFailing bool   `json:"failing"`
	RetryMs   *int64 `json:"retry_ms"`
}

// The states of a service besides running and ended.
const (
	ServiceBackingOff = "backing_off"
	ServiceStopped    = "stopped"
)

// Services answers the operations on services.
type Services struct {
	Services []ServiceState `json:"services"`
}

// ServiceNotice tells a watcher that a service fails again and again.
type ServiceNotice struct {
	ServiceFailing ServiceState `json:"service_failing"`
}

// InitStarted answers init_start.
type InitStarted struct {
	Process string `json:"process"`
	Path    string `json:"path"`
}
