// A stream: one operation's frames, with a window in each direction.
//
// Invariants: at most one window of input waits here; at most one window of output is in flight; no frame follows
// the close frame. A cancellation (the host's close, or a lost connection) is reported to the operation, which ends
// the processes it runs and finishes the stream as usual.

package main

import (
	"encoding/binary"
	"sync"

	"bhatti/agent/wire"
)

// creditBytesOwedMin is the amount of taken input that collects before the host gets credit: a window frame for
// every keystroke would double the traffic, and the host stops only after a whole window.
const creditBytesOwedMin = wire.WindowBytes / 4

type stream struct {
	connection *connection
	id         uint32
	cancelled  chan struct{}

	isClosed bool // the close frame has been sent; under connection.writing

	mu         sync.Mutex
	changed    sync.Cond
	isStopped  bool // cancelled, or its consumers must finish
	credit     int  // bytes we may send
	allowance  int  // bytes the host may send
	owed       int  // bytes taken and not yet given back
	takesInput bool
	input      []byte
	inputSpare []byte
	inputAt    []extent // input in the shared memory, all of it behind input
	usesShared bool     // some input came there
	inputEnded bool
	onMessage  func(payload []byte)
	onChange   func()
	onCancel   func()
}

func newStream(c *connection, id uint32) *stream {
	s := &stream{
		connection: c, id: id,
		cancelled: make(chan struct{}),
		credit:    wire.WindowBytes, allowance: wire.WindowBytes,
		takesInput: true,
	}
	s.changed.L = &s.mu
	return s
}

// receive queues input until the operation takes it.
func (s *stream) receive(channel byte, bytes []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if channel > wire.Stderr || len(bytes) > s.allowance {
		return wire.ErrBroken
	}
	s.allowance -= len(bytes)
	if channel != wire.Stdin || !s.takesInput || s.inputEnded {
		return nil
	}
	if len(s.inputAt) > 0 {
		return wire.ErrBroken
	}
	s.input = append(s.input, bytes...)
	s.changed.Broadcast()
	return nil
}

// receiveAt is receive for bytes in the shared memory. They stay there until they are given back.
func (s *stream) receiveAt(place wire.Place) error {
	shared := s.connection.agent.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared == nil || place.Channel > wire.Stderr || place.Length > s.allowance ||
		place.Offset+place.Length > len(shared.bytes) {
		return wire.ErrBroken
	}
	s.allowance -= place.Length
	s.usesShared = true
	if place.Channel != wire.Stdin || !s.takesInput || s.inputEnded {
		return nil
	}
	if last := len(s.inputAt) - 1; last >= 0 && s.inputAt[last].end == place.Offset {
		s.inputAt[last].end += place.Length
	} else {
		s.inputAt = append(s.inputAt, extent{place.Offset, place.Offset + place.Length})
	}
	s.changed.Broadcast()
	return nil
}

func (s *stream) receiveEnd(channel byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if channel > wire.Stderr {
		return wire.ErrBroken
	}
	if channel == wire.Stdin {
		s.inputEnded = true
		s.changed.Broadcast()
	}
	return nil
}

// refuseInput drops the host's input.
func (s *stream) refuseInput() {
	s.mu.Lock()
	s.takesInput = false
	s.input, s.inputSpare, s.inputAt = nil, nil, nil
	s.mu.Unlock()
}

// takeInput waits for input and returns it, valid until the next call and until it is given back. It returns nil at
// its end. Bytes in the shared memory can change at any time, so the caller must check isIntact before it commits a
// result based on them.
func (s *stream) takeInput() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.hasInput() && !s.inputEnded && !s.isStopped {
		s.changed.Wait()
	}
	if !s.hasInput() || s.isStopped {
		return nil
	}
	if len(s.input) == 0 {
		first := s.inputAt[0]
		s.inputAt = s.inputAt[1:]
		return s.connection.agent.shared.bytes[first.start:first.end]
	}
	taken := s.input
	s.input, s.inputSpare = s.inputSpare[:0], taken
	return taken
}

// hasWholeInput reports whether takeInput returned nil because the host had sent everything and all of it was used.
func (s *stream) hasWholeInput() bool {
	if !s.isIntact() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inputEnded && !s.hasInput() && !s.isStopped
}

// isIntact reports whether all input used until now was what the host had sent.
func (s *stream) isIntact() bool {
	s.mu.Lock()
	usesShared := s.usesShared
	s.mu.Unlock()
	return !usesShared || s.connection.agent.shared.isOf(s.connection)
}

func (s *stream) hasInput() bool { return len(s.input) > 0 || len(s.inputAt) > 0 }

// giveBack returns credit for as many bytes to the host.
func (s *stream) giveBack(count int) {
	s.mu.Lock()
	s.owed += count
	owed := s.owed
	if owed < creditBytesOwedMin {
		s.mu.Unlock()
		return
	}
	s.owed = 0
	s.allowance += owed
	s.mu.Unlock()
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], uint32(owed))
	s.send(wire.Window, payload[:])
}

func (s *stream) addCredit(count uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uint64(s.credit)+uint64(count) > wire.WindowBytes {
		return wire.ErrBroken
	}
	s.credit += int(count)
	s.tellChanged()
	return nil
}

// reserve takes up to max bytes of credit, perhaps none.
func (s *stream) reserve(max int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if max > s.credit {
		max = s.credit
	}
	s.credit -= max
	return max
}

// release returns unused credit.
func (s *stream) release(count int) {
	if count == 0 {
		return
	}
	s.mu.Lock()
	s.credit += count
	s.changed.Broadcast()
	s.mu.Unlock()
}

// awaitCredit waits until there is credit; false means that the stream was cancelled.
func (s *stream) awaitCredit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credit == 0 && !s.isCancelled() {
		s.changed.Wait()
	}
	return !s.isCancelled()
}

func (s *stream) isCancelled() bool {
	select {
	case <-s.cancelled:
		return true
	default:
		return false
	}
}

// cancel tells the operation to end.
func (s *stream) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isCancelled() {
		close(s.cancelled)
		if s.onCancel != nil {
			go s.onCancel()
		}
	}
	s.isStopped = true
	s.tellChanged()
}

// watch sets the function to call when credit arrives or the stream is cancelled. The function must not block.
func (s *stream) watch(onChange func()) {
	s.mu.Lock()
	s.onChange = onChange
	s.mu.Unlock()
}

// whenCancelled sets the function to run when the stream is cancelled, on a goroutine of its own.
func (s *stream) whenCancelled(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onCancel = do
	if s.isCancelled() {
		go do()
	}
}

func (s *stream) tellChanged() {
	s.changed.Broadcast()
	if s.onChange != nil {
		s.onChange()
	}
}

// stopInput ends takeInput.
func (s *stream) stopInput() {
	s.mu.Lock()
	s.isStopped = true
	s.changed.Broadcast()
	s.mu.Unlock()
}

func (s *stream) hasStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isStopped
}

// listen sets the consumer of the host's messages; it runs on the goroutine that starts operations.
func (s *stream) listen(onMessage func(payload []byte)) {
	s.mu.Lock()
	s.onMessage = onMessage
	s.mu.Unlock()
}

func (s *stream) deliver(payload []byte) {
	s.mu.Lock()
	onMessage := s.onMessage
	s.mu.Unlock()
	if onMessage != nil {
		onMessage(payload)
	}
}

// dataRoom is the space that a buffer must keep free before the bytes that sendData sends.
const dataRoom = wire.HeaderBytes + 1

// chunkBytes makes a whole frame 32 KiB, the most that the kernel's virtio console takes in one write.
const chunkBytes = wire.DataBytesMax - dataRoom

// sendData sends buffer[dataRoom:], for which credit was reserved.
func (s *stream) sendData(channel byte, buffer []byte) error {
	wire.PutHeader(buffer, wire.Header{Type: wire.Data, Stream: s.id, Length: uint32(len(buffer) - wire.HeaderBytes)})
	buffer[wire.HeaderBytes] = channel
	return s.connection.write(s, buffer)
}

func (s *stream) send(kind wire.Type, payload []byte) {
	// A failed write ends the connection, which cancels this stream.
	_ = s.connection.write(s, wire.AppendFrame(nil, wire.Frame{Type: kind, Stream: s.id, Payload: payload}))
}

// succeed and fail send the stream's last frame.
func (s *stream) succeed(value any)    { s.finish(wire.Result{OK: value}) }
func (s *stream) fail(err *wire.Error) { s.finish(wire.Result{Error: err}) }

func (s *stream) finish(result wire.Result) {
	s.connection.remove(s)
	s.send(wire.Close, wire.Encode(result))
}

// message sends a message about the running operation.
func (s *stream) message(value any) { s.send(wire.Message, wire.Encode(value)) }
