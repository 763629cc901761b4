// An attachment: a stream that shows a session and sends input to it. Ending it never ends the session.

package main

import (
	"time"

	"bhatti/agent/wire"
)

type attachment struct {
	session *session
	stream  *stream
	changed chan struct{} // holds one token: there is something to look at
	done    chan struct{} // closed when it sends no more input; the next attachment waits for that

	// Under session.mu.
	position    int64  // of the next byte to be sent
	replayEnd   int64  // where the output shown before it attached ends
	reset       string // sent after the replay
	isTakenOver bool
}

// wholeScreenScrolls resets a scroll region, whose rows belonged to another window size, and leaves the cursor
// where it is.
const wholeScreenScrolls = "\x1b7\x1b[r\x1b8"

// attach makes the stream the session's only client.
func (s *session) attach(to *stream, size *wire.Size) {
	a := &attachment{session: s, stream: to, changed: make(chan struct{}, 1), done: make(chan struct{})}
	to.watch(a.wake)
	to.listen(a.receive)
	to.message(wire.SessionMessage{Session: s.called()})
	s.mu.Lock()
	former := s.client
	if former != nil {
		former.isTakenOver = true
		former.wake()
	}
	s.client = a
	a.position, a.replayEnd = s.shown.start(), s.shown.total
	if size != nil && *size != s.terminal.size() {
		a.reset = wholeScreenScrolls
	}
	s.taken.Broadcast()
	s.mu.Unlock()
	if size != nil {
		s.terminal.show(*size)
	}
	go a.run(former)
}

func (a *attachment) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *attachment) run(former *attachment) {
	fed := make(chan struct{})
	go func() {
		if former != nil {
			<-former.done
		}
		a.feed()
		close(fed)
	}()
	result := a.follow()
	a.stream.stopInput()
	// Input that the command has not read by now is dropped.
	_ = a.session.terminal.master.SetWriteDeadline(time.Now())
	<-fed
	_ = a.session.terminal.master.SetWriteDeadline(time.Time{})
	close(a.done)
	a.session.leave(a)
	a.stream.succeed(result)
}

func (s *session) leave(a *attachment) {
	s.mu.Lock()
	if s.client == a {
		s.client = nil
	}
	s.taken.Broadcast()
	s.mu.Unlock()
}

// follow sends the terminal's output until there is a reason to stop.
func (a *attachment) follow() any {
	buffer := chunks.Get().(*[dataRoom + chunkBytes]byte)
	defer chunks.Put(buffer)
	for {
		count, result := a.take(buffer[dataRoom:])
		switch {
		case result != nil:
			return result
		case count == 0:
			<-a.changed
		case a.stream.sendData(wire.Stdout, buffer[:dataRoom+count]) != nil:
			return wire.SessionLeft{State: wire.StateDetached}
		}
	}
}

// take copies the next bytes for which there is credit. A result means that there are no more bytes to send.
func (a *attachment) take(buffer []byte) (count int, result any) {
	s := a.session
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.shown.total - a.position
	if a.reset != "" {
		pending = a.replayEnd - a.position
	}
	switch {
	case a.stream.isCancelled():
		return 0, wire.SessionLeft{State: wire.StateDetached}
	case a.isTakenOver:
		return 0, wire.SessionLeft{State: wire.StateTakenOver}
	case pending <= 0 && a.reset != "":
		count = copy(buffer[:a.stream.reserve(len(a.reset))], a.reset)
		a.reset = a.reset[count:]
		return count, nil
	case pending == 0 && s.ended != nil:
		return 0, wire.SessionEnded{State: wire.StateEnded, Exited: *s.ended}
	case pending == 0:
		return 0, nil
	}
	if pending > int64(len(buffer)) {
		pending = int64(len(buffer))
	}
	count = a.stream.reserve(int(pending))
	s.shown.copyFrom(a.position, buffer[:count])
	a.position += int64(count)
	s.taken.Broadcast()
	return count, nil
}

// feed writes the host's input to the terminal.
func (a *attachment) feed() {
	wants := true
	for bytes := a.stream.takeInput(); bytes != nil; bytes = a.stream.takeInput() {
		if wants {
			_, err := a.session.terminal.master.Write(bytes)
			// The command may have ended; its remaining output is still sent.
			wants = err == nil
		}
		a.stream.giveBack(len(bytes))
	}
}

// receive is the consumer of the host's messages.
func (a *attachment) receive(payload []byte) {
	var message wire.ToProcess
	if err := wire.Decode(payload, &message); err != nil {
		return
	}
	a.session.mu.Lock()
	isClient := a.session.client == a
	a.session.mu.Unlock()
	if !isClient {
		return
	}
	if number, isKnown := signalNumbers[message.Signal]; isKnown {
		a.session.terminal.signal(number, a.session.child)
	}
	if message.Resize != nil {
		a.session.terminal.resize(*message.Resize)
	}
}
