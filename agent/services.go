// Services: programs that the agent starts in an order, keeps running, and ends in the reverse order.
//
//	         ┌──────────── its delay is over ◄────────────┐
//	         ▼                                            │
//	start ─► running ── ends, and is to run again ─► backing off
//	            │ └──── ends, and is not ─► ended
//	            └────── stop, or the machine's end ─► stopped
//
// Each run is an ordinary process with the service's name, which is kept; the last one that ended is kept beside it.
// Lock order: services.mu before those of processes.

package main

import (
	"sync"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	servicesMax = 32
	// The delay before a restart doubles with each end in a row, within these bounds.
	restartDelayLeast = 100 * time.Millisecond
	restartDelayMost  = 30 * time.Second
	// A service that has run this long has not failed in a row.
	steadyAfter = 10 * time.Second
	// endsUntilFailing is how many ends in a row are told to the host.
	endsUntilFailing = 5
	// A service gets serviceEndDeadline to end, and all of them together servicesEndBudget.
	serviceEndDeadline = 5 * time.Second
	servicesEndBudget  = 8 * time.Second
)

type services struct {
	// changing is held while a request stops and starts services, and taken before mu.
	changing sync.Mutex
	mu       sync.Mutex
	all      []*service // in the order of their starts
	isEnding bool
}

// service is one of them. A removed service never runs again.
type service struct {
	agent    *agent
	spec     wire.Service
	state    string
	process  *process // running, or the last one; nil: none was started
	former   *process // the one before, which has ended
	began    time.Time
	ended    *wire.Ended
	failure  *wire.Error
	isNew    bool // it is to be started
	isGone   bool
	restarts int
	inARow   int
	retry    *time.Timer
	retryAt  time.Time
}

// orderServices puts each service behind those that it names in after. Others keep their order.
func orderServices(specs []wire.Service, known map[string]bool) ([]wire.Service, error) {
	byName := map[string]int{}
	for i := range specs {
		if err := checkService(&specs[i]); err != nil {
			return nil, err
		}
		if _, isTwice := byName[specs[i].Name]; isTwice {
			return nil, wire.Errorf(wire.Invalid, "two services are called %q", specs[i].Name)
		}
		byName[specs[i].Name] = i
	}
	var ordered []wire.Service
	const begun, done = 1, 2
	marks := make([]int, len(specs))
	var visit func(i int) error
	visit = func(i int) error {
		switch marks[i] {
		case begun:
			return wire.Errorf(wire.Invalid, "the service %q would have to start after itself", specs[i].Name)
		case done:
			return nil
		}
		marks[i] = begun
		for _, name := range specs[i].After {
			other, isThere := byName[name]
			if !isThere && !known[name] {
				return wire.Errorf(wire.Invalid, "the service %q starts after %q, which does not exist", specs[i].Name, name)
			}
			if isThere {
				if err := visit(other); err != nil {
					return err
				}
			}
		}
		marks[i] = done
		ordered = append(ordered, specs[i])
		return nil
	}
	for i := range specs {
		if err := visit(i); err != nil {
			return nil, err
		}
	}
	return ordered, nil
}

func checkService(spec *wire.Service) error {
	if !isProcessName(spec.Name) {
		return wire.Errorf(wire.Invalid, "%q is not a valid name of a service", spec.Name)
	}
	if spec.Restart == "" {
		spec.Restart = wire.RestartAlways
	}
	switch spec.Restart {
	case wire.RestartAlways, wire.RestartOnFailure, wire.RestartNever:
	default:
		return wire.Errorf(wire.Invalid, "restart is always, on-failure or never, not %q", spec.Restart)
	}
	if len(spec.Argv) == 0 {
		return wire.Errorf(wire.Invalid, "argv of the service %q names no program", spec.Name)
	}
	return checkText(wire.Exec{Argv: spec.Argv, Env: spec.Env, Cwd: spec.Cwd})
}

// find returns nil if there is no service of that name. Needs mu.
func (t *services) find(name string) *service {
	for _, v := range t.all {
		if v.spec.Name == name {
			return v
		}
	}
	return nil
}

// run starts the program. Needs services.mu.
func (v *service) run() {
	t := &v.agent.services
	if t.isEnding || v.isGone || v.state == wire.StateRunning {
		return
	}
	v.state, v.began, v.failure, v.retry = wire.StateRunning, time.Now(), nil, nil
	p, err := v.launch()
	if err != nil {
		v.failure, v.ended = asError(err), nil
		v.goOn(true)
		return
	}
	if v.former != nil {
		v.agent.processes.forget(v.former)
	}
	v.former, v.process = v.process, p
	p.run()
}

func (v *service) launch() (*process, error) {
	if err := v.agent.checkServiceProgram(v.spec); err != nil {
		return nil, err
	}
	p, _, err := v.agent.startProcess(wire.ProcessStart{
		Exec: execOf(v.spec), Name: &v.spec.Name, OnDisconnect: wire.DisconnectKeep, RetainMs: processTimeMaxMs,
	}, v.onEnd)
	return p, err
}

// onEnd is called when a run has ended.
func (v *service) onEnd(p *process) {
	t := &v.agent.services
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.process != p {
		return
	}
	v.ended = p.ended
	if v.state != wire.StateRunning {
		return
	}
	v.goOn(p.ended.ExitCode != 0)
}

// goOn decides what follows the end of a run. Needs services.mu.
func (v *service) goOn(hasFailed bool) {
	isAgain := v.spec.Restart == wire.RestartAlways || v.spec.Restart == wire.RestartOnFailure && hasFailed
	if !isAgain || v.agent.services.isEnding {
		v.state = wire.StateEnded
		return
	}
	if time.Since(v.began) >= steadyAfter {
		v.inARow = 0
	}
	v.inARow++
	delay := restartDelay(v.inARow)
	v.state, v.retryAt = wire.ServiceBackingOff, time.Now().Add(delay)
	var retry *time.Timer
	retry = time.AfterFunc(delay, func() {
		t := &v.agent.services
		t.mu.Lock()
		defer t.mu.Unlock()
		if v.state == wire.ServiceBackingOff && v.retry == retry {
			v.restarts++
			v.run()
		}
	})
	v.retry = retry
	if v.inARow == endsUntilFailing {
		v.agent.notices.tell(wire.ServiceNotice{ServiceFailing: v.describe()})
	}
}

func restartDelay(inARow int) time.Duration {
	delay := restartDelayLeast
	for i := 1; i < inARow && delay < restartDelayMost; i++ {
		delay *= 2
	}
	if delay > restartDelayMost {
		return restartDelayMost
	}
	return delay
}

func (t *services) start(v *service) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v.inARow = 0
	v.run()
}

// stop ends a service with everything in its session, on somebody's behalf: politely, then by force.
func (t *services) stop(v *service, patience time.Duration, by string) {
	t.mu.Lock()
	p := v.process
	isRunning := v.state == wire.StateRunning
	if v.state == wire.ServiceBackingOff {
		v.retry.Stop()
	}
	v.state = wire.ServiceStopped
	t.mu.Unlock()
	if !isRunning || p == nil {
		return
	}
	p.signal(syscall.SIGTERM, wire.ScopeSession, by)
	p.child.signalSession(syscall.SIGCONT)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.finished:
	case <-late.C:
		p.signal(syscall.SIGKILL, wire.ScopeSession, by)
		<-p.finished
	}
	// onEnd may come later than whoever asks how it ended.
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.process == p {
		v.ended = p.ended
	}
}

// stopAll ends all services for good, the last one first.
func (t *services) stopAll() {
	t.mu.Lock()
	t.isEnding = true
	all := append([]*service(nil), t.all...)
	t.mu.Unlock()
	t.stopInReverse(all, wire.ByShutdown)
}

// stopInReverse ends services, the last one first, all of them within their budget.
func (t *services) stopInReverse(list []*service, by string) {
	end := time.Now().Add(servicesEndBudget)
	for i := len(list) - 1; i >= 0; i-- {
		patience := time.Until(end)
		if patience > serviceEndDeadline {
			patience = serviceEndDeadline
		}
		t.stop(list[i], patience, by)
	}
}

func (t *services) describe() wire.Services {
	t.mu.Lock()
	defer t.mu.Unlock()
	described := wire.Services{Services: []wire.ServiceState{}}
	for _, v := range t.all {
		described.Services = append(described.Services, v.describe())
	}
	return described
}

// describe needs services.mu.
func (v *service) describe() wire.ServiceState {
	state := wire.ServiceState{
		Name: v.spec.Name, Argv: shortened(v.spec.Argv), Restart: v.spec.Restart, State: v.state, Restarts: v.restarts,
		Ended: v.ended, IsFailing: v.inARow >= endsUntilFailing && v.state != wire.ServiceStopped,
	}
	if v.failure != nil {
		words := v.failure.Error()
		state.Failure, state.FailureReason = &words, v.failure.Reason
	}
	if v.process != nil {
		state.Process = &v.process.id
	}
	if v.state == wire.ServiceBackingOff {
		ms := time.Until(v.retryAt).Milliseconds()
		if ms < 0 {
			ms = 0
		}
		state.RetryMs = &ms
	}
	return state
}
