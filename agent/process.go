// A process: a program that the agent has started, with its whole session, its output and its clients.
//
//	          ┌───────────── attach ◄─────────────┐
//	          ▼                                   │
//	start ─► driven ── driver leaves ─► waits for its grace ── over: keep ─► alone ─► attach
//	  │                                                     └─ over: kill ─► killed
//	  └─ without a client ─► alone
//
//	any of them ── leader exits ─► outputs read empty ─► ended ── driver told, retained ─► forgotten
//
// Lock order: processes.mu, process.mu, stream.mu. Frames are sent without these locks. A client's last frame is
// sent by the one that removed the client from its process.

package main

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	watchersMax = 16
	// backlogBytesMax is how far a driver may lag before the program has to wait. It is small, so that the output of
	// an interrupted command stops soon on the screen.
	backlogBytesMax = 65536
	// restBytesMax is that of a program that has exited: a ring always keeps so much.
	restBytesMax = ringBytesGranted - ringBytesStep
)

type process struct {
	agent       *agent
	id          string
	name        *string
	key         string
	fingerprint uint64 // of what a second start with the key must repeat
	argv        []string
	user        string
	directory   string
	isKept      bool // it lives on without a driver
	grace       time.Duration
	retain      time.Duration
	created     time.Time
	child       *child
	terminal    *terminal // nil: pipes
	outputs     []*output
	finished    chan struct{}  // closed when ended is set
	onEnd       func(*process) // nil: nobody asked
	isInit      bool           // the sandbox's init

	input     *os.File      // nil: none
	writing   chan struct{} // holds a token while a piece of input is written
	allInput  inputCount    // from anybody
	inputShut int32         // not 0: no more input; atomic, set under writing

	mu          sync.Mutex
	driver      *client
	watchers    map[*client]bool
	order       []orderedRun
	writers     map[string]*inputCount // input by the name that its driver goes by
	feeding     chan struct{}          // closed when the newest driver's feeder has stopped; nil if there was none
	graceRound  int
	isInGrace   bool
	limit       *time.Timer
	sent        sentSignal
	ended       *wire.Ended
	endedAt     time.Time
	isRetained  bool
	retaining   *time.Timer
	forgetAt    time.Time // zero: a timer does it, or nothing; under processes.mu
	isForgotten bool
}

// output is one of a process's outputs. All but wake and file is under process.mu.
type output struct {
	index     int
	channel   byte
	file      *os.File
	wake      chan struct{} // holds one token: the pump can look again
	ring      ring
	leftAt    int64 // where the last driver left
	hasPaused bool  // there was no output for a moment
}

func (o *output) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// pokeOutputs lets the pumps look again. It must not block.
func (p *process) pokeOutputs() {
	for _, o := range p.outputs {
		o.poke()
	}
}

// run begins to read the process's output.
func (p *process) run() { go p.supervise() }

// supervise follows the process to its end.
func (p *process) supervise() {
	var pumps sync.WaitGroup
	pumps.Add(len(p.outputs))
	for _, o := range p.outputs {
		go func(o *output) {
			defer pumps.Done()
			p.pump(o)
		}(o)
	}
	<-p.child.exited
	p.shutInput()
	if p.terminal != nil {
		p.terminal.closeSlave()
	}
	for _, o := range p.outputs {
		_ = o.file.SetReadDeadline(past)
		o.poke()
	}
	pumps.Wait()
	p.end()
}

// past is a deadline that interrupts.
var past = time.Unix(1, 0)

// end records the result and tells it to the clients that have all output.
func (p *process) end() {
	p.mu.Lock()
	sent := p.sent
	p.mu.Unlock()
	if sent.reason == "" && atomic.LoadInt32(&p.agent.reaper.endsAll) != 0 {
		sent = sentSignal{number: p.child.status.Signal(), by: wire.ByShutdown}
	}
	ended := describeEnd(p.child.status, p.child.pid, p.created, sent, p.agent.kills)
	p.mu.Lock()
	p.ended, p.endedAt = &ended, time.Now()
	if p.limit != nil {
		p.limit.Stop()
	}
	told := p.driver
	if told != nil && told.hasAll() {
		p.driver = nil
	} else {
		told = nil
	}
	isKilled := p.sent.reason != ""
	p.wakeClients()
	p.mu.Unlock()
	close(p.finished)
	p.agent.processes.ended(p)
	p.agent.tellEnd(p)
	if p.onEnd != nil {
		p.onEnd(p)
	}
	if told != nil {
		told.depart(wire.StateEnded)
	}
	p.leaveOutputs(isKilled)
	p.settle()
}

// kill ends the whole session for a reason of the agent's own.
func (p *process) kill(reason wire.EndReason) {
	p.mu.Lock()
	if p.sent.reason == "" {
		p.sent = sentSignal{number: syscall.SIGKILL, reason: reason, by: wire.ByAgent}
	}
	p.pokeOutputs()
	p.mu.Unlock()
	p.child.killSession()
}

// signal sends a signal on somebody's behalf.
func (p *process) signal(number syscall.Signal, scope, by string) {
	if by == "" {
		by = wire.ByClient
	}
	p.mu.Lock()
	if p.sent.reason == "" {
		p.sent = sentSignal{number: number, by: by}
	}
	p.pokeOutputs()
	p.mu.Unlock()
	switch {
	case scope == wire.ScopeSession || number == syscall.SIGKILL:
		p.child.signalSession(number)
	case p.terminal != nil && scope != wire.ScopeGroup:
		p.terminal.signal(number, p.child)
	default:
		p.child.signal(number)
	}
}

// startGrace decides what becomes of a process that its driver has left. It holds p.mu.
func (p *process) startGrace(left *client) (isOver bool) {
	for i, o := range p.outputs {
		o.leftAt = left.at[i]
		if left.isStraight[i] {
			o.leftAt = o.ring.total
		}
	}
	if p.grace <= 0 {
		return true
	}
	p.isInGrace = true
	p.graceRound++
	round := p.graceRound
	time.AfterFunc(p.grace, func() {
		p.mu.Lock()
		isOver := p.isInGrace && p.graceRound == round
		if isOver {
			p.isInGrace = false
		}
		p.mu.Unlock()
		if isOver {
			p.abandon()
		}
	})
	return false
}

// abandon ends the wait for a driver.
func (p *process) abandon() {
	if !p.isKept && !p.hasEnded() {
		p.kill(wire.EndDisconnected)
	}
	p.pokeOutputs()
	p.settle()
}

// settle begins the time for which an ended process is kept, when no driver waits for its end.
func (p *process) settle() {
	p.mu.Lock()
	isDue := p.ended != nil && p.driver == nil && !p.isInGrace && !p.isRetained
	if isDue {
		p.isRetained = true
	}
	left := p.retain - time.Since(p.endedAt)
	p.mu.Unlock()
	switch {
	case !isDue:
	case left <= 0:
		p.agent.processes.forget(p)
	case p.isSmall():
		p.agent.processes.forgetLater(p, time.Now().Add(left))
	default:
		p.mu.Lock()
		p.retaining = time.AfterFunc(left, func() { p.agent.processes.forget(p) })
		if p.isForgotten {
			p.retaining.Stop()
		}
		p.mu.Unlock()
	}
	p.releaseOutput()
}

// lazyBytesMax is the output up to which an ended process waits for the next request to be forgotten. A timer of its
// own would cost each command, and wake an idle machine for nothing.
const lazyBytesMax = 16384

func (p *process) isSmall() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := 0
	for _, o := range p.outputs {
		size += o.ring.size
	}
	return size <= lazyBytesMax
}

// releaseOutput frees the output of a forgotten process that nobody reads any more.
func (p *process) releaseOutput() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isForgotten && p.driver == nil && len(p.watchers) == 0 {
		p.dropOutput()
	}
}

// dropOutput frees the kept output. It holds p.mu.
func (p *process) dropOutput() (freed int) {
	p.order = nil
	for _, o := range p.outputs {
		freed += o.ring.drop()
	}
	return freed
}

func (p *process) hasEnded() bool {
	select {
	case <-p.finished:
		return true
	default:
		return false
	}
}

func (p *process) hasExited() bool {
	select {
	case <-p.child.exited:
		return true
	default:
		return false
	}
}

// isSession: it has a terminal and outlives its clients. The init is no session of a user.
func (p *process) isSession() bool { return p.terminal != nil && p.isKept && !p.isInit }

func (p *process) isDriven() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.driver != nil
}

func (p *process) describe() wire.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	described := wire.Process{
		ID: p.id, Name: p.name, Pid: p.child.innerPid, Argv: p.argv, User: p.user, Cwd: p.directory,
		HasTerminal: p.terminal != nil, State: wire.StateRunning, Ended: p.ended, OnDisconnect: wire.DisconnectKill,
		Driven: p.driver != nil, Watchers: len(p.watchers), InputOpen: p.ended == nil && p.takesInput(),
		CreatedUnixMs: p.created.UnixMilli(),
	}
	if p.isKept {
		described.OnDisconnect = wire.DisconnectKeep
	}
	if p.ended != nil {
		ms := p.endedAt.UnixMilli()
		described.State, described.EndedUnixMs = wire.StateEnded, &ms
	}
	kept := []*wire.Kept{&described.Output.Stdout, &described.Output.Stderr}
	for i, o := range p.outputs {
		*kept[i] = wire.Kept{First: o.ring.first, Total: o.ring.total}
	}
	return described
}

// argvBytesShown keeps a list of processes within one frame.
const argvBytesShown = 2048

// shortened truncates a command for display.
func shortened(argv []string) []string {
	short, left := []string{}, argvBytesShown
	for _, argument := range argv {
		if left <= 0 {
			return append(short, "…")
		}
		if len(argument) > left {
			argument = argument[:left]
			for len(argument) > 0 && argument[len(argument)-1]&0xc0 != 0 && argument[len(argument)-1] >= 0x80 {
				argument = argument[:len(argument)-1]
			}
			argument += "…"
		}
		left -= len(argument) + 1
		short = append(short, argument)
	}
	return short
}

// takesInput reports whether input still reaches the program.
func (p *process) takesInput() bool { return p.input != nil && atomic.LoadInt32(&p.inputShut) == 0 }
