// A terminal for one command.
//
// The agent keeps the command's side open while the leader lives, so that a program which closes all its files for
// a moment does not end the terminal.

package main

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"bhatti/agent/wire"
)

const (
	ioctlUnlock   = syscall.TIOCSPTLCK
	ioctlOpenPeer = 0x5441 // TIOCGPTPEER: opens the other side without a path
	flagUTF8      = 0x4000 // IUTF8: erasing removes whole characters
	endOfInput    = 0x04   // VEOF of a fresh terminal
)

type terminal struct {
	master *os.File

	mu    sync.Mutex
	slave int // -1: closed
}

func openTerminal(size wire.Size, owner account) (*terminal, error) {
	master, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/ptmx", err)
	}
	slave, err := openPeer(master)
	if err != nil {
		syscall.Close(master)
		return nil, err
	}
	owner.own(slave)
	setUTF8(slave)
	t := &terminal{master: pollable(master, "terminal"), slave: slave}
	t.resize(size)
	return t, nil
}

func openPeer(master int) (int, error) {
	var locked int32
	if err := ioctl(master, ioctlUnlock, unsafe.Pointer(&locked)); err != nil {
		return 0, os.NewSyscallError("unlock the terminal", err)
	}
	const flags = syscall.O_RDWR | syscall.O_NOCTTY | syscall.O_CLOEXEC
	slave, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(master), ioctlOpenPeer, flags)
	if errno != 0 {
		return 0, os.NewSyscallError("open the terminal", errno)
	}
	return int(slave), nil
}

func setUTF8(slave int) {
	var settings syscall.Termios
	if ioctl(slave, syscall.TCGETS, unsafe.Pointer(&settings)) == nil {
		settings.Iflag |= flagUTF8
		_ = ioctl(slave, syscall.TCSETS, unsafe.Pointer(&settings))
	}
}

// resize sets the size; the kernel notifies the command's foreground group.
func (t *terminal) resize(size wire.Size) {
	dimensions := [4]uint16{size.Rows, size.Cols, 0, 0}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slave >= 0 {
		_ = ioctl(t.slave, syscall.TIOCSWINSZ, unsafe.Pointer(&dimensions))
	}
}

// show sets the size for the client that watches the terminal from now on. It signals a full-screen program even if
// the size is the same, so that the program redraws the screen.
func (t *terminal) show(size wire.Size) {
	before := t.size()
	t.resize(size)
	if before == size {
		if group := t.foreground(); group > 0 {
			_ = syscall.Kill(-group, syscall.SIGWINCH)
		}
	}
}

func (t *terminal) size() (size wire.Size) {
	var dimensions [4]uint16
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slave >= 0 && ioctl(t.slave, syscall.TIOCGWINSZ, unsafe.Pointer(&dimensions)) == nil {
		size = wire.Size{Rows: dimensions[0], Cols: dimensions[1]}
	}
	return size
}

// foreground is the process group that receives the terminal's keys; 0 if there is none.
func (t *terminal) foreground() int {
	var group int32
	raw, err := t.master.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		if ioctl(int(fd), syscall.TIOCGPGRP, unsafe.Pointer(&group)) != nil {
			group = 0
		}
	})
	if err != nil || group <= 1 {
		return 0
	}
	return int(group)
}

// signal signals the foreground group: a shell's own group is not that of the job it runs.
func (t *terminal) signal(signal syscall.Signal, leader *child) {
	if group := t.foreground(); group > 0 {
		_ = syscall.Kill(-group, signal)
		return
	}
	leader.signal(signal)
}

func (t *terminal) closeSlave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slave >= 0 {
		syscall.Close(t.slave)
		t.slave = -1
	}
}

func (t *terminal) close() {
	t.closeSlave()
	t.master.Close()
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}
