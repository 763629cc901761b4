// Notices that the agent sends unasked: ends of processes, kills for memory, and services that keep failing. The
// stream that asked last carries them; without a stream they are queued, and each is sent once.

package main

import (
	"reflect"
	"sync"

	"bhatti/agent/wire"
)

// noticesWaitingMax limits the notices of each kind that are queued for a host; older ones are dropped.
const noticesWaitingMax = 16

type notices struct {
	mu      sync.Mutex
	stream  *stream // nil if there is no listener
	waiting []any
}

func (a *agent) watch(s *stream, _ []byte) {
	n := &a.notices
	n.leave()
	n.mu.Lock()
	n.stream = s
	for _, notice := range n.waiting {
		if s.suits(notice) {
			s.message(notice)
		}
	}
	n.waiting = nil
	n.mu.Unlock()
	s.refuseInput()
	s.whenCancelled(func() { n.leaveOf(s) })
}

func (n *notices) tell(notice any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stream != nil {
		if n.stream.suits(notice) {
			n.stream.message(notice)
		}
		return
	}
	n.waiting = append(n.waiting, notice)
	n.dropOldest(reflect.TypeOf(notice))
}

// dropOldest removes the oldest notice of a kind that has too many.
func (n *notices) dropOldest(kind reflect.Type) {
	count, oldest := 0, -1
	for i, notice := range n.waiting {
		if reflect.TypeOf(notice) == kind {
			if count++; oldest < 0 {
				oldest = i
			}
		}
	}
	if count > noticesWaitingMax {
		n.waiting = append(n.waiting[:oldest], n.waiting[oldest+1:]...)
	}
}

// leave ends the stream, so that the connection has only streams of operations.
func (n *notices) leave() {
	n.mu.Lock()
	left := n.stream
	n.stream = nil
	n.mu.Unlock()
	if left != nil {
		left.succeed(wire.Empty{})
	}
}

func (n *notices) leaveOf(s *stream) {
	n.mu.Lock()
	isOurs := n.stream == s
	n.mu.Unlock()
	if isOurs {
		n.leave()
	}
}

// tellEnd tells the end of a process with a name, and each that the process did not choose itself.
func (a *agent) tellEnd(p *process) {
	if p.isInit && (p.endedInOrder() || !a.isInit(p)) {
		return
	}
	if p.name != nil {
		a.notices.tell(wire.SessionNotice{Ended: wire.SessionExit{Session: p.id, Name: *p.name, Exited: exitedAs(p.ended)}})
	}
	if p.ended.Reason != wire.EndExited {
		a.notices.tell(wire.ProcessNotice{ProcessEnded: wire.ProcessEnd{
			Process: p.id, Name: p.name, Program: p.argv[0], Pid: p.child.innerPid, Ended: *p.ended,
		}})
	}
}

// suits reports whether the stream's host knows this kind of notice.
func (s *stream) suits(notice any) bool {
	switch notice.(type) {
	case wire.ProcessNotice, wire.ServiceNotice:
		return s.connection.generation >= wire.ProcessGeneration
	}
	return true
}
