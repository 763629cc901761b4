// The operations of generation 2 on commands and sessions, as hosts of that generation request them: a translation
// to processes. An exec is a process that ends with its client; a session is one with a terminal that is kept.

package main

import (
	"syscall"
	"time"

	"bhatti/agent/wire"
)

const (
	// replayBytes is the amount of a session's output kept for later clients.
	replayBytes      = 262144
	sessionsEndedMax = 16
	retainLongest    = processTimeMaxMs * time.Millisecond
)

func (a *agent) exec(s *stream, payload []byte) {
	var request wire.Exec
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	if len(request.Argv) == 0 {
		s.fail(wire.Errorf(wire.Invalid, "argv names no program").Because(wire.BadText))
		return
	}
	p, _, err := a.startProcess(wire.ProcessStart{Exec: request}, nil)
	if err != nil {
		s.fail(asError(err))
		return
	}
	p.begin(s, attachment{
		greet: func(m wire.ProcessMessage) any { return wire.Started{Started: wire.Pid{Pid: p.child.innerPid}} },
		// A client that has left is told the end too.
		depart: func(c *client, _ string) {
			<-p.finished
			s.succeed(exitedAs(p.ended))
		},
	})
}

func exitedAs(ended *wire.Ended) wire.Exited {
	return wire.Exited{ExitCode: ended.ExitCode, Signal: ended.Signal}
}

// attachmentOfSession is a client of generation 2.
func attachmentOfSession(p *process) attachment {
	return attachment{
		keepsInputOpen: true, showsAsOutput: true,
		greet: func(wire.ProcessMessage) any { return wire.SessionMessage{Session: sessionName(p)} },
		depart: func(c *client, state string) {
			switch state {
			case wire.StateEnded:
				c.stream.succeed(wire.SessionEnded{State: state, Exited: exitedAs(p.ended)})
			case wire.StateLeft:
				c.stream.succeed(wire.SessionLeft{State: wire.StateDetached})
			default:
				c.stream.succeed(wire.SessionLeft{State: state})
			}
		},
	}
}

func sessionName(p *process) wire.SessionName {
	return wire.SessionName{ID: p.id, Name: p.name, Argv: p.argv}
}

func (a *agent) sessionOpen(s *stream, payload []byte) {
	var request wire.SessionOpen
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	if request.Terminal == nil {
		request.Terminal = &wire.Terminal{}
	}
	request.Stdin = true
	p, _, err := a.startProcess(wire.ProcessStart{
		Exec: request.Exec, Name: request.Name, OnDisconnect: wire.DisconnectKeep, RetainMs: processTimeMaxMs,
		RingBytes: replayBytes,
	}, a.sessionEnded)
	if err != nil {
		s.fail(asError(err))
		return
	}
	if request.Attach != nil && !*request.Attach {
		p.run()
		s.succeed(wire.SessionOpened{Session: p.id})
		return
	}
	p.begin(s, attachmentOfSession(p))
}

// sessionEnded keeps the newest ended sessions only.
func (a *agent) sessionEnded(p *process) {
	ended := 0
	list := a.processes.list()
	for i := len(list) - 1; i >= 0; i-- {
		if session := list[i]; session.isSession() && session.retain == retainLongest && session.hasEnded() {
			if ended++; ended > sessionsEndedMax {
				a.processes.forget(session)
			}
		}
	}
}

func (a *agent) sessionAttach(s *stream, payload []byte) {
	var request wire.SessionAttach
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	p, err := a.newestDetached()
	if request.Session != "" {
		p, err = a.findSession(request.Session)
	}
	if err == nil {
		wants := attachmentOfSession(p)
		wants.size = request.Size
		err = p.attach(s, wants)
	}
	if err != nil {
		s.fail(asError(err))
	}
}

// findSession returns the process of an id or name, in the words of generation 2.
func (a *agent) findSession(wanted string) (*process, error) {
	p, err := a.processes.find(wanted)
	if err != nil || !p.isSession() {
		return nil, wire.Errorf(wire.NotFound, "no session %q", wanted)
	}
	return p, nil
}

func (a *agent) newestDetached() (*process, error) {
	list := a.processes.list()
	for i := len(list) - 1; i >= 0; i-- {
		if p := list[i]; p.isSession() && !p.hasEnded() && !p.isDriven() {
			return p, nil
		}
	}
	return nil, wire.Errorf(wire.NotFound, "there is no detached session")
}

func (a *agent) sessionList(s *stream, _ []byte) {
	list := []wire.Session{}
	for _, p := range a.processes.list() {
		if p.isSession() {
			list = append(list, describeSession(p))
		}
	}
	s.succeed(wire.Sessions{Sessions: list})
}

func describeSession(p *process) wire.Session {
	described := p.describe()
	session := wire.Session{
		SessionName: sessionName(p), Pid: described.Pid, State: described.State, Attached: described.Driven,
		CreatedUnixMs: described.CreatedUnixMs,
	}
	if described.Ended != nil {
		session.ExitCode, session.Signal = &described.Ended.ExitCode, described.Ended.Signal
	}
	return session
}

func (a *agent) sessionKill(s *stream, payload []byte) {
	var request wire.SessionKill
	p, ok := a.named(s, payload, &request, a.findSession, func() string { return request.Session })
	if !ok {
		return
	}
	number, isKnown := signalNumbers[request.Signal]
	if request.Signal == "" {
		number, isKnown = syscall.SIGKILL, true
	}
	switch {
	case !isKnown:
		s.fail(wire.Errorf(wire.Invalid, "no signal %q", request.Signal))
		return
	case p.hasEnded():
		a.processes.forget(p)
	default:
		p.signal(number, wire.ScopeSession, wire.ByClient)
	}
	s.succeed(wire.Empty{})
}

// sessionRead sends the kept output of a session's terminal without detaching its client.
func (a *agent) sessionRead(s *stream, payload []byte) {
	var request wire.SessionKill
	p, ok := a.named(s, payload, &request, a.findSession, func() string { return request.Session })
	if !ok {
		return
	}
	read := attachment{isWatcher: true, isOnce: true}
	begin := int64(0)
	read.greet = func(m wire.ProcessMessage) any { begin = m.From.Stdout; return nil }
	read.depart = func(c *client, state string) { s.succeed(wire.FileBytes{Bytes: c.until[0] - begin}) }
	if err := p.attach(s, read); err != nil {
		s.fail(asError(err))
	}
}
