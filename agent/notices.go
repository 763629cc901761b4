// Notices that the agent sends unasked: named sessions that have ended, and kills for memory. The stream that asked
// last carries them; without a stream they are queued, and each is sent once.

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
		s.message(notice)
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
		n.stream.message(notice)
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

// noticeOf returns the notice for a session that has ended; false for a session without a name.
func noticeOf(s *session) (wire.SessionNotice, bool) {
	described := s.describe()
	if described.Name == nil || described.ExitCode == nil {
		return wire.SessionNotice{}, false
	}
	return wire.SessionNotice{Ended: wire.SessionExit{
		Session: described.ID, Name: *described.Name,
		Exited: wire.Exited{ExitCode: *described.ExitCode, Signal: described.Signal},
	}}, true
}

// sessionRead sends the kept output of a session's terminal without detaching its client.
func (a *agent) sessionRead(s *stream, payload []byte) {
	var request wire.SessionKill
	if err := wire.Decode(payload, &request); err != nil {
		s.fail(asError(err))
		return
	}
	found, err := a.sessions.find(request.Session)
	if err != nil {
		s.fail(asError(err))
		return
	}
	shown := found.replay()
	go func() {
		total := int64(len(shown))
		buffer := chunks.Get().(*[dataRoom + chunkBytes]byte)
		defer chunks.Put(buffer)
		for len(shown) > 0 {
			count := s.reserve(minimum(len(shown), chunkBytes))
			if count == 0 {
				if !s.awaitCredit() {
					s.fail(errGivenUp)
					return
				}
				continue
			}
			copy(buffer[dataRoom:], shown[:count])
			shown = shown[count:]
			if s.sendData(wire.Stdout, buffer[:dataRoom+count]) != nil {
				s.fail(errGivenUp)
				return
			}
		}
		s.succeed(wire.FileBytes{Bytes: total})
	}()
}

// replay copies the kept output of the terminal.
func (s *session) replay() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.shown.start()
	shown := make([]byte, s.shown.total-from)
	if len(shown) > 0 {
		s.shown.copyFrom(from, shown)
	}
	return shown
}
