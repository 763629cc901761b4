// System calls that take a name inside an open directory; a name that is a link is never followed.

package main

import (
	"syscall"
	"unsafe"
)

const (
	flagPath        = 0x200000 // O_PATH
	atNoFollow      = 0x100    // AT_SYMLINK_NOFOLLOW
	sysUtimensat    = 280
	sysOpenat2      = 437
	resolveBeneath  = 0x08
	resolveNoLinks  = 0x04
	prSetNoNewPrivs = 38
	prSetDeathSig   = 1
	rlimitAddresses = 9
	rlimitProcesses = 6
)

// openHow is the kernel's struct open_how.
type openHow struct{ flags, mode, resolve uint64 }

// openBeneath opens a path below a directory, on which no link may be.
func openBeneath(folder int, path string, flags int) (int, error) {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	how := openHow{flags: uint64(flags | syscall.O_CLOEXEC), resolve: resolveBeneath | resolveNoLinks}
	for {
		fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(folder), uintptr(unsafe.Pointer(name)),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case syscall.EINTR, syscall.EAGAIN:
		default:
			return -1, errno
		}
	}
}

func openAt(folder int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := syscall.Openat(folder, name, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

func mkdirAt(folder int, name string) error {
	return callAt(syscall.SYS_MKDIRAT, folder, name, 0o700, 0)
}

func makePipeAt(folder int, name string) error {
	return callAt(syscall.SYS_MKNODAT, folder, name, syscall.S_IFIFO|0o600, 0)
}

func removeAt(folder int, name string, flags uintptr) error {
	return callAt(syscall.SYS_UNLINKAT, folder, name, flags, 0)
}

// markAt sets the time of the last access, in seconds, and leaves the other time.
func markAt(folder int, name string, seconds int64) error {
	const omit = (1 << 30) - 2
	times := [2]syscall.Timespec{{Sec: seconds}, {Nsec: omit}}
	return callAt(sysUtimensat, folder, name, uintptr(unsafe.Pointer(&times)), atNoFollow)
}

// callAt makes a call whose arguments are a directory, a name in it and two others.
func callAt(number uintptr, folder int, name string, third, fourth uintptr) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, errno := syscall.Syscall6(number, uintptr(folder), uintptr(unsafe.Pointer(pointer)), third, fourth, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func symlinkAt(target string, folder int, name string) error {
	to, err := syscall.BytePtrFromString(target)
	if err != nil {
		return err
	}
	at, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(to)), uintptr(folder),
		uintptr(unsafe.Pointer(at)))
	if errno != 0 {
		return errno
	}
	return nil
}

// linkAt adds a name, renameAt moves one.
func linkAt(fromFolder int, from string, toFolder int, to string) error {
	return callBetween(syscall.SYS_LINKAT, fromFolder, from, toFolder, to)
}

func renameAt(fromFolder int, from string, toFolder int, to string) error {
	return callBetween(syscall.SYS_RENAMEAT, fromFolder, from, toFolder, to)
}

func callBetween(number uintptr, fromFolder int, from string, toFolder int, to string) error {
	first, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	second, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(number, uintptr(fromFolder), uintptr(unsafe.Pointer(first)), uintptr(toFolder),
		uintptr(unsafe.Pointer(second)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
