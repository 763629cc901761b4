// The operations that the host can request: one table, from the operation's name to the function that starts it.
//
// The functions are called in the order of the open frames. A function finishes its stream, immediately or later
// from a goroutine of its own, and must not itself wait for the stream's input, credit or messages.

package main

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

// agent is the whole of this program; it acts through machine and reaper.
type agent struct {
	version      string
	bootFailures []string
	machine      machine
	reaper       *reaper
	processes    processes
	notices      notices
	watches      fileWatches
	shared       *sharedMemory // nil if there is none
	kills        *memoryKills  // nil without a kernel log
	hooks        hooks
	services     services

	mu sync.Mutex
	// isPersonalised: operations are allowed. hasIdentity: it was personalised since its boot, so a refresh is
	// enough.
	isPersonalised bool
	hasIdentity    bool
	env            map[string]string
	// init is the init of the sandbox; nil without one. isEndingInit: its end is asked for.
	init         *process
	isEndingInit bool
	clone        cloning

	initStarting     sync.Mutex
	lookingForTimers sync.Mutex
	// wakeUps are the counts of the last scan for timers.
	wakeUps map[int]wakeUps
}

// machine holds the functions that change the whole machine. Tests, which run on a developer's machine, replace
// them.
type machine struct {
	personalise func(wire.Personalise) (wire.Personalised, error)
	renewBootID func() error
	store       func() error
	trim        func(budget time.Duration) error
	scrub       func(untouchedMib int) error
	refresh     func(wire.Refresh) error
	end         func(command int)
	// hold stops every program and returns their control groups.
	hold func() ([]string, error)
}

type operation struct {
	name string
	// isAlwaysAllowed marks operations that a guest without an identity accepts.
	isAlwaysAllowed bool
	start           func(a *agent, s *stream, payload []byte)
}

// operations are searched one by one: there are few, and a map would be more code to run in a machine that wakes.
var operations = []operation{
	{name: "ping", isAlwaysAllowed: true, start: (*agent).ping},
	{name: "personalise", isAlwaysAllowed: true, start: (*agent).personalise},
	{name: "refresh", isAlwaysAllowed: true, start: (*agent).refresh},
	{name: "quiesce", isAlwaysAllowed: true, start: (*agent).quiesce},
	{name: "shutdown", isAlwaysAllowed: true, start: (*agent).shutdown},
	{name: "clone_start", start: (*agent).cloneStart},
	{name: "init_start", start: (*agent).initStart},
	{name: "next_timer", start: (*agent).nextTimer},
	{name: "trim", start: (*agent).trim},

	{name: "process_start", start: (*agent).processStart},
	{name: "process_attach", start: (*agent).processAttach},
	{name: "process_list", start: (*agent).processList},
	{name: "process_get", start: (*agent).processGet},
	{name: "process_wait", start: (*agent).processWait},
	{name: "process_signal", start: (*agent).processSignal},
	{name: "process_input", start: (*agent).processInput},
	{name: "process_resize", start: (*agent).processResize},
	{name: "process_forget", start: (*agent).processForget},
	{name: "watch", start: (*agent).watch},

	{name: "service_start", start: (*agent).serviceStart},
	{name: "service_list", start: (*agent).serviceList},
	{name: "service_control", start: (*agent).serviceControl},
	{name: "service_set", start: (*agent).serviceSet},

	{name: "exec", start: (*agent).exec},
	{name: "session_read", start: (*agent).sessionRead},
	{name: "session_open", start: (*agent).sessionOpen},
	{name: "session_attach", start: (*agent).sessionAttach},
	{name: "sessions", start: (*agent).sessionList},
	{name: "session_kill", start: (*agent).sessionKill},

	{name: "file_read", start: (*agent).fileRead},
	{name: "file_write", start: (*agent).fileWrite},
	{name: "file_list", start: (*agent).fileList},
	{name: "file_stat", start: (*agent).fileStat},
	{name: "file_remove", start: (*agent).fileRemove},
	{name: "file_mkdir", start: (*agent).fileMkdir},
	{name: "file_owner", start: (*agent).fileFindOwner},
	{name: "file_attributes", start: (*agent).fileAttributes},
	{name: "file_move", start: (*agent).fileMove},
	{name: "file_watch", start: (*agent).fileWatch},
	{name: "archive_read", start: (*agent).archiveRead},
	{name: "archive_write", start: (*agent).archiveWrite},

	{name: "file_watch_read", start: (*agent).fileWatchRead},
	{name: "file_watch_remove", start: (*agent).fileWatchRemove},

	{name: "dial", start: (*agent).dial},
	{name: "ports", start: (*agent).ports},
}

// start begins the operation that payload requests.
func (a *agent) start(s *stream, payload []byte) {
	name, err := wire.Operation(payload)
	if err != nil {
		s.fail(asError(err))
		return
	}
	o := findOperation(name)
	switch {
	case o == nil:
		s.fail(wire.Errorf(wire.Unavailable, "this agent has no operation %q", name))
	case s.isCancelled():
		s.fail(wire.Errorf(wire.Unavailable, "%s was closed before it started", name))
	case !o.isAlwaysAllowed && !a.personalised():
		s.fail(wire.Errorf(wire.Conflict, "the guest is not personalised"))
	default:
		o.start(a, s, payload)
	}
}

// findOperation returns nil for an unknown name.
func findOperation(name string) *operation {
	for i := range operations {
		if operations[i].name == name {
			return &operations[i]
		}
	}
	return nil
}

func (a *agent) personalised() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.isPersonalised
}

func (a *agent) ping(s *stream, _ []byte) {
	failures := a.bootFailures
	if failures == nil {
		failures = []string{}
	}
	s.succeed(wire.Pong{
		Agent: "lohar", Version: a.version, Personalised: a.personalised(), BootFailures: failures,
		RootReadOnly: isReadOnly("/"), Repair: lastRepair,
	})
}

func (a *agent) personalise(s *stream, payload []byte) {
	var request wire.Personalise
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.isPersonalised, a.hasIdentity = false, false
	personalised, err := a.machine.personalise(request)
	if err != nil {
		s.fail(asError(err))
		return
	}
	if a.isCopyFor(request.MachineID) {
		if err := a.machine.renewBootID(); err != nil {
			s.fail(wire.Errorf(wire.Internal, "give the boot an id of its own: %v", err))
			return
		}
	}
	a.isPersonalised, a.hasIdentity, a.env = true, true, request.Env
	theImage.Store(request.Image)
	a.clone.identity, personalised.Pending = request, a.isPending()
	a.processes.beFirstBoot(request.IsNew)
	s.succeed(personalised)
}

func (a *agent) refresh(s *stream, payload []byte) {
	var request wire.Refresh
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.hasIdentity {
		s.fail(wire.Errorf(wire.Conflict, "the guest has no identity yet"))
		return
	}
	a.isPersonalised = false
	if err := a.machine.refresh(request); err != nil {
		s.fail(asError(err))
		return
	}
	a.isPersonalised = true
	s.succeed(wire.Empty{})
}

// quiesce brings both sides to a frame boundary, so that the machine can be frozen.
func (a *agent) quiesce(s *stream, payload []byte) {
	var request wire.Quiesce
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	a.notices.leave()
	a.watches.leave()
	if !s.connection.quiesce(s.id) {
		s.fail(wire.Errorf(wire.Conflict, "other streams are open"))
		return
	}
	if request.Hold {
		if err := a.hold(); err != nil {
			s.fail(wire.Errorf(wire.Internal, "hold the programs: %v", err))
			return
		}
	}
	if err := a.machine.store(); err != nil {
		report("%v", err)
	}
	syscall.Sync()
	if err := a.machine.trim(quiesceTrimBudget); err != nil {
		report("%v", err)
	}
	a.scrub(request.UntouchedMib)
	a.mu.Lock()
	a.isPersonalised = false
	a.mu.Unlock()
	s.succeed(wire.Empty{})
}

func (a *agent) shutdown(s *stream, _ []byte) {
	s.succeed(wire.Empty{})
	go func() {
		a.services.stopAll()
		a.endInit()
		a.machine.end(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	}()
}

// asError gives every error a code. An error of the guest's kernel is not a bug of this program.
func asError(err error) *wire.Error {
	if coded, ok := err.(*wire.Error); ok {
		return coded
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return wire.Errorf(errnoCode(errno), "%v", err)
	}
	return wire.Errorf(wire.Internal, "%v", err)
}
