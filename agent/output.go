// The outputs of a process: read while it runs, to its ring and its driver, read empty when its leader has exited,
// and then dropped. A background child that still holds an output open does not delay the end, but must not die of
// its next log line either.

package main

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// chunk is a buffer for one data frame.
type chunk [dataRoom + chunkBytes]byte

// chunks keeps some unused buffers. A pool of the standard library would drop them with each collection of garbage, and
// the first command of a machine that wakes would pay for new memory.
var chunks chunkList

const chunksKept = 4

type chunkList struct {
	mu     sync.Mutex
	unused []*chunk
}

func (l *chunkList) take() *chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.unused) - 1
	if last < 0 {
		return new(chunk)
	}
	buffer := l.unused[last]
	l.unused = l.unused[:last]
	return buffer
}

func (l *chunkList) giveBack(buffer *chunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unused) < chunksKept {
		l.unused = append(l.unused, buffer)
	}
}

// The results of an attempt to move output.
type moved int

const (
	isMoved moved = iota
	isEmpty       // there is no output yet
	isFull        // the driver has to take some first
	isOver        // there will be no more output
)

// pump moves one output until its end, and after the leader's exit the rest of it. It holds no buffer while it waits.
func (p *process) pump(o *output) {
	raw, err := o.file.SyscallConn()
	for err == nil {
		result := isMoved
		err = raw.Read(func(fd uintptr) bool {
			_, result = p.move(o, int(fd), chunkBytes)
			return result != isEmpty
		})
		switch {
		case err == os.ErrDeadlineExceeded: // RawConn does not wrap it.
			p.drain(raw, o)
			return
		case err != nil || result == isOver:
			return
		case result == isFull:
			<-o.wake
		}
	}
}

// move reads one chunk of at most max bytes from a descriptor. A driver that has all output before gets it straight
// from the buffer.
func (p *process) move(o *output, fd, max int) (n int, result moved) {
	p.mu.Lock()
	d := p.driver
	if d != nil {
		d.straighten(o.index)
	}
	max = p.room(o, max)
	isStraight := d != nil && d.isStraight[o.index]
	p.mu.Unlock()
	if max == 0 {
		return 0, isFull
	}
	buffer, isKept := chunks.take(), false
	defer func() {
		if !isKept {
			chunks.giveBack(buffer)
		}
	}()
	n, err := read(fd, buffer[dataRoom:dataRoom+max])
	if err != nil || n == 0 {
		if isStraight {
			d.stream.release(max)
		}
		if err == syscall.EAGAIN {
			o.hasPaused = true
			return 0, isEmpty
		}
		return 0, isOver
	}
	p.mu.Lock()
	isKept = p.keep(o, buffer, n)
	isSent := isStraight && p.driver == d
	isRefused := o.ring.isRefused
	o.ring.isRefused = false
	p.wakeClients()
	p.mu.Unlock()
	if isStraight {
		d.stream.release(max - n)
	}
	if isSent && d.stream.sendData(o.channel, buffer[:dataRoom+n]) != nil {
		p.mu.Lock()
		d.isLost = true
		p.mu.Unlock()
	}
	if isRefused {
		p.agent.processes.reclaim()
	}
	return n, isMoved
}

func read(fd int, buffer []byte) (n int, err error) {
	for n, err = syscall.Read(fd, buffer); err == syscall.EINTR; {
		n, err = syscall.Read(fd, buffer)
	}
	if n < 0 {
		n = 0
	}
	return n, err
}

// room returns how many bytes may be read now, and takes that much credit of a straight driver. It holds p.mu.
func (p *process) room(o *output, max int) int {
	d, sent, behind := p.driver, o.leftAt, int64(backlogBytesMax)
	if p.hasExited() {
		// The rest is short, and the ring keeps it: the end does not wait for a driver that reads nothing.
		behind = restBytesMax
	}
	if d != nil && d.isStraight[o.index] {
		if !d.isLost {
			if room := d.stream.reserve(max); room > 0 {
				return room
			}
		}
		if !p.hasExited() {
			return 0
		}
		d.bend(o.index)
	}
	switch {
	case d != nil:
		sent = d.at[o.index]
	case !p.isInGrace:
		return max
	}
	if p.isKilled() && p.hasExited() {
		return max // A small ring may drop what its driver lacks, which is told so.
	}
	if room := behind - (o.ring.total - sent); room < int64(max) {
		if room < 0 {
			return 0
		}
		return int(room)
	}
	return max
}

// isKilled reports whether its end is wanted at once. It holds p.mu.
func (p *process) isKilled() bool { return p.sent.reason != "" || p.sent.number == syscall.SIGKILL }

// keep adds output to the ring, which may keep the buffer. It holds p.mu.
func (p *process) keep(o *output, buffer *chunk, count int) (isKept bool) {
	if o.ring.needsTime(o.hasPaused) {
		o.hasPaused = false
		o.ring.stamp(time.Since(p.created))
	}
	isKept = o.ring.adopt(buffer, count)
	p.note(o)
	return isKept
}

// terminalBytesMax is more than a terminal buffers for its reader.
const terminalBytesMax = 131072

// drain moves the output that the leader had written when it exited. A background child may still be writing: drain
// takes no more than was there.
func (p *process) drain(raw syscall.RawConn, o *output) {
	_ = raw.Control(func(fd uintptr) {
		left := terminalBytesMax
		if p.terminal == nil {
			left = readableBytes(int(fd))
		}
		for left > 0 {
			n, result := p.move(o, int(fd), minimum(left, chunkBytes))
			left -= n
			switch result {
			case isFull:
				<-o.wake
			case isEmpty, isOver:
				return
			}
		}
	})
}

// lingering limits the outputs that are read and dropped after their leader's exit.
var lingering = make(chan struct{}, 1024)

// leaveOutputs closes the outputs, now or when the last background child has closed them.
func (p *process) leaveOutputs(isKilled bool) {
	if p.terminal != nil {
		p.terminal.close()
		return
	}
	for _, o := range p.outputs {
		if isKilled || hasHungUp(o.file) {
			o.file.Close()
			continue
		}
		select {
		case lingering <- struct{}{}:
			go discard(o.file)
		default:
			o.file.Close()
		}
	}
}

func discard(file *os.File) {
	_ = file.SetReadDeadline(time.Time{})
	raw, err := file.SyscallConn()
	for err == nil {
		var n int
		var readErr error
		err = raw.Read(func(fd uintptr) bool {
			buffer := chunks.take()
			defer chunks.giveBack(buffer)
			n, readErr = syscall.Read(int(fd), buffer[:])
			return readErr != syscall.EAGAIN
		})
		if n <= 0 {
			break
		}
	}
	file.Close()
	<-lingering
}

func readableBytes(fd int) int {
	var count int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&count)))
	if errno != 0 {
		return 0
	}
	return int(count)
}

// hasHungUp reports whether a pipe is empty and has no writer left.
func hasHungUp(file *os.File) bool {
	raw, err := file.SyscallConn()
	if err != nil {
		return true
	}
	isOver := false
	_ = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, err := syscall.Read(int(fd), one[:])
		isOver = n == 0 && err == nil
	})
	return isOver
}
