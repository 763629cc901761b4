// System calls that take a name inside an open directory. Names that are links are never followed, except by
// openBeneath, where the kernel keeps the lookup inside the directory, whatever other programs do meanwhile.

package main

import (
	"syscall"
	"unsafe"
)

const (
	flagPath          = 0x200000 // O_PATH
	atNoFollow        = 0x100    // AT_SYMLINK_NOFOLLOW
	atFollow          = 0x400    // AT_SYMLINK_FOLLOW
	atRemoveDirectory = 0x200    // AT_REMOVEDIR
	atWorkingFolder   = -100     // AT_FDCWD

	resolveNoMagicLinks = 0x02
	resolveNoLinks      = 0x04
	resolveBeneath      = 0x08
)

// openHow is the kernel's struct open_how.
type openHow struct{ flags, mode, resolve uint64 }

// openBeneath opens a path below an open directory. It refuses a link that leads outside with EXDEV.
func openBeneath(folder int, path string, flags int) (int, error) {
	return openResolved(folder, path, flags, resolveBeneath|resolveNoMagicLinks)
}

// openResolved opens a path with the kernel's limits on its lookup.
func openResolved(folder int, path string, flags int, resolve uint64) (int, error) {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	how := openHow{flags: uint64(flags | syscall.O_CLOEXEC), resolve: resolve}
	for {
		fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(folder), uintptr(unsafe.Pointer(name)),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case syscall.EINTR, syscall.EAGAIN: // EAGAIN: a directory on the path was renamed.
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

func statAt(folder int, name string, about *syscall.Stat_t) error {
	return callAt(sysFstatat, folder, name, uintptr(unsafe.Pointer(about)), atNoFollow)
}

func removeAt(folder int, name string, flags uintptr) error {
	return callAt(syscall.SYS_UNLINKAT, folder, name, flags, 0)
}

func mkdirAt(folder int, name string, mode uint32) error {
	return callAt(syscall.SYS_MKDIRAT, folder, name, uintptr(mode), 0)
}

// callAt makes a call whose arguments are a directory, a name in it and two others.
func callAt(number uintptr, folder int, name string, third, fourth uintptr) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(number, uintptr(folder), uintptr(unsafe.Pointer(pointer)), third, fourth, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func symlinkAt(target string, folder int, name string) error {
	targetPointer, err := syscall.BytePtrFromString(target)
	if err != nil {
		return err
	}
	namePointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_SYMLINKAT,
		uintptr(unsafe.Pointer(targetPointer)), uintptr(folder), uintptr(unsafe.Pointer(namePointer)))
	if errno != 0 {
		return errno
	}
	return nil
}

func linkAt(fromFolder int, from string, toFolder int, to string, flags uintptr) error {
	fromPointer, err := syscall.BytePtrFromString(from)
	if err != nil {
		return err
	}
	toPointer, err := syscall.BytePtrFromString(to)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_LINKAT, uintptr(fromFolder), uintptr(unsafe.Pointer(fromPointer)),
		uintptr(toFolder), uintptr(unsafe.Pointer(toPointer)), flags, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func ownAt(folder int, name string, who account) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_FCHOWNAT, uintptr(folder), uintptr(unsafe.Pointer(pointer)),
		uintptr(who.uid), uintptr(who.gid), atNoFollow, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// readLinkAt returns the target of a link.
func readLinkAt(folder int, name string) (string, error) {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return "", err
	}
	var target [4096]byte
	n, _, errno := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(folder), uintptr(unsafe.Pointer(pointer)),
		uintptr(unsafe.Pointer(&target)), uintptr(len(target)), 0, 0)
	if errno != 0 {
		return "", errno
	}
	return string(target[:n]), nil
}
