// The outputs of a command: sent while it runs, read empty when it has ended, and then dropped.

package main

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

var chunks = sync.Pool{New: func() any { return new([dataRoom + chunkBytes]byte) }}

// pump sends one output until its end, and after the command's exit the rest of it. It holds no buffer while it
// waits.
func (c *command) pump(o output) {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		isStarved, isEnded, isSent := false, false, false
		err := raw.Read(func(fd uintptr) bool {
			n, again, _ := forward(c.stream, o.channel, int(fd), chunkBytes)
			isStarved, isEnded, isSent = n < 0, n == 0 && !again, n > 0
			return !again
		})
		switch {
		case isSent:
		case isStarved:
			if !c.stream.awaitCredit() {
				return
			}
		case isEnded:
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.drain(raw, o.channel)
			return
		case err != nil:
			return
		}
	}
}

// forward sends one chunk of at most max bytes from a descriptor. It returns their number, 0 at the end, -1 without
// credit; again means that there are no bytes yet.
func forward(s *stream, channel byte, fd, max int) (n int, again bool, err error) {
	credit := s.reserve(max)
	if credit == 0 {
		return -1, false, nil
	}
	buffer := chunks.Get().(*[dataRoom + chunkBytes]byte)
	defer chunks.Put(buffer)
	n, err = syscall.Read(fd, buffer[dataRoom:dataRoom+credit])
	for err == syscall.EINTR {
		n, err = syscall.Read(fd, buffer[dataRoom:dataRoom+credit])
	}
	if n < 0 {
		n = 0
	}
	s.release(credit - n)
	switch {
	case err == syscall.EAGAIN:
		return 0, true, nil
	case err != nil || n == 0:
		return 0, false, err
	}
	if err := s.sendData(channel, buffer[:dataRoom+n]); err != nil {
		return 0, false, err
	}
	return n, false, nil
}

// terminalBytesMax is more than a terminal buffers for its reader.
const terminalBytesMax = 131072

// drain sends the output that the command had written when it ended. A background child may still be writing: drain
// takes no more than was there.
func (c *command) drain(raw syscall.RawConn, channel byte) {
	_ = raw.Control(func(fd uintptr) {
		left := terminalBytesMax
		if c.terminal == nil {
			left = readableBytes(int(fd))
		}
		for left > 0 {
			n, again, _ := forward(c.stream, channel, int(fd), minimum(left, chunkBytes))
			switch {
			case n > 0:
				left -= n
			case n < 0 && c.stream.awaitCredit():
			case again, n <= 0:
				return
			}
		}
	})
}

// lingering limits the outputs that are read and dropped after their command's end.
var lingering = make(chan struct{}, 1024)

// leaveOutputs closes the outputs, now or when the last background child has closed them.
func (c *command) leaveOutputs() {
	if c.terminal != nil || c.stream.isCancelled() {
		c.closeOutputs()
		return
	}
	for _, o := range c.outputs {
		if hasHungUp(o.file) {
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
			buffer := chunks.Get().(*[dataRoom + chunkBytes]byte)
			defer chunks.Put(buffer)
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

func (c *command) closeOutputs() {
	for _, o := range c.outputs {
		o.file.Close()
	}
	if c.terminal != nil {
		c.terminal.closeSlave()
	}
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
