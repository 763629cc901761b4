// The operations on processes.

package main

import (
	"syscall"

	"bhatti/agent/wire"
)

// processListBytes is the size at which a part of the list is sent.
const processListBytes = 65536

// byBytesMax limits the name of a signal's author.
const byBytesMax = 256

func (a *agent) processStart(s *stream, payload []byte) {
	var request wire.ProcessStart
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	p, isNew, err := a.startProcess(request, nil)
	if err != nil {
		s.fail(asError(err))
		return
	}
	wants := attachment{from: request.From, isNew: isNew, writer: request.Key, greet: greetProcess, depart: departProcess}
	if request.Terminal != nil {
		wants.size = &request.Terminal.Size
	}
	switch attaches := request.Attach == nil || *request.Attach; {
	case !attaches:
		if isNew {
			p.run()
		}
		s.succeed(wire.ProcessStarted{Process: p.describe(), IsNew: isNew})
	case isNew:
		p.begin(s, wants)
	default:
		if err := p.attach(s, wants); err != nil {
			s.fail(asError(err))
		}
	}
}

func (a *agent) processAttach(s *stream, payload []byte) {
	var request wire.ProcessAttach
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	if !ok {
		return
	}
	wants := attachment{from: request.From, size: request.Size, writer: request.Writer, greet: greetProcess, depart: departProcess}
	wants.isOnce = request.Follow != nil && !*request.Follow
	switch request.Mode {
	case "", wire.ModeDrive:
		wants.isWatcher = wants.isOnce
	case wire.ModeWatch:
		wants.isWatcher = true
	default:
		s.fail(wire.Errorf(wire.Invalid, "mode is drive or watch, not %q", request.Mode))
		return
	}
	if since := request.SinceMs; since != nil {
		if *since < 0 || *since > processTimeMaxMs {
			s.fail(wire.Errorf(wire.Invalid, "since_ms cannot be %d", *since))
			return
		}
		ago := milliseconds(*since)
		wants.since = &ago
	}
	if err := p.attach(s, wants); err != nil {
		s.fail(asError(err))
	}
}

// named reads a request and finds the process that it names. Where it cannot, it fails the stream.
func (a *agent) named(
	s *stream, payload []byte, request any, find func(string) (*process, error), name func() string,
) (*process, bool) {
	err := wire.Decode(payload, request)
	var p *process
	if err == nil {
		p, err = find(name())
	}
	if err != nil {
		s.fail(asError(err))
		return nil, false
	}
	return p, true
}

func (a *agent) processList(s *stream, _ []byte) {
	go func() {
		part, size, count := []wire.Process{}, 0, 0
		for _, p := range a.processes.list() {
			described := p.describe()
			part, size, count = append(part, described), size+len(wire.Encode(described)), count+1
			if size > processListBytes {
				s.message(wire.Processes{Processes: part})
				part, size = nil, 0
			}
		}
		if len(part) > 0 {
			s.message(wire.Processes{Processes: part})
		}
		s.succeed(wire.ProcessCount{Processes: count})
	}()
}

func (a *agent) processGet(s *stream, payload []byte) {
	var request wire.ProcessNamed
	if p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process }); ok {
		s.succeed(wire.ProcessFound{Process: p.describe()})
	}
}

func (a *agent) processWait(s *stream, payload []byte) {
	var request wire.ProcessNamed
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	if !ok {
		return
	}
	go func() {
		select {
		case <-p.finished:
			s.succeed(wire.ProcessFound{Process: p.describe()})
		case <-s.cancelled:
			s.fail(errGivenUp)
		}
	}()
}

func (a *agent) processSignal(s *stream, payload []byte) {
	var request wire.ProcessSignal
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	if !ok {
		return
	}
	number, isKnown := signalNumbers[request.Signal]
	if request.Signal == "" {
		number, isKnown = syscall.SIGTERM, true
	}
	switch request.Scope {
	case "", wire.ScopeSession, wire.ScopeForeground, wire.ScopeGroup:
	default:
		isKnown = false
	}
	if !isKnown || len(request.By) > byBytesMax {
		s.fail(wire.Errorf(wire.Invalid, "no signal %q with the scope %q", request.Signal, request.Scope))
		return
	}
	if p.hasEnded() {
		s.fail(wire.Errorf(wire.Conflict, "%s has ended", p.id))
		return
	}
	p.signal(number, request.Scope, request.By)
	s.succeed(wire.Empty{})
}

func (a *agent) processInput(s *stream, payload []byte) {
	var request wire.ProcessInput
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	if !ok {
		return
	}
	if p.input == nil || p.hasEnded() {
		s.fail(wire.Errorf(wire.Conflict, "%s takes no input", p.id))
		return
	}
	s.whenCancelled(p.interruptInput)
	go func() {
		for bytes := s.takeInput(); bytes != nil; bytes = s.takeInput() {
			if err := p.writeInput(inputPiece{s, s.cancelled, nil}, bytes, request.At); err != nil {
				s.fail(asError(err))
				return
			}
			s.giveBack(len(bytes))
		}
		if !s.hasWholeInput() {
			s.fail(errGivenUp)
			return
		}
		if request.Close {
			p.endInput(inputPiece{s, s.cancelled, nil})
		}
		s.succeed(wire.InputTaken{Input: p.allInput.bytes()})
	}()
}

func (a *agent) processResize(s *stream, payload []byte) {
	var request wire.ProcessResize
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	switch {
	case !ok:
	case p.terminal == nil:
		s.fail(wire.Errorf(wire.Invalid, "%s has no terminal", p.id))
	default:
		p.terminal.resize(request.Size)
		s.succeed(wire.Empty{})
	}
}

func (a *agent) processForget(s *stream, payload []byte) {
	var request wire.ProcessNamed
	p, ok := a.named(s, payload, &request, a.processes.find, func() string { return request.Process })
	switch {
	case !ok:
	case !p.hasEnded():
		s.fail(wire.Errorf(wire.Conflict, "%s is running", p.id))
	default:
		a.processes.forget(p)
		s.succeed(wire.Empty{})
	}
}
