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

// ServiceControl starts, stops or restarts one service.
type ServiceControl struct {
	Service string `json:"service"`
	Action  string `json:"action"`
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
