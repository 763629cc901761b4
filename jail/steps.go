// The way from this program to QEMU as a table of system calls. They run in a process that is a bare copy of this
// one, where Go's runtime does not work, so the table is complete before and only has to be read.

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	// About twenty descriptors are in use; the rest is for connections to the monitor.
	openFilesMax = 1024
	// vCPUs, and at most 64 threads for disk requests. Counted per user id, so only where QEMU has one of its own.
	threadsMax = 1024
	// The kernel counts the threads of a zygote's children also as the zygote's.
	threadsOfChildrenMax = 1 << 20

	prCapbsetDrop     = 24
	prSetNoNewPrivs   = 38
	prCapAmbient      = 47
	prCapAmbientClear = 4
	rlimitNproc       = 6
	sigIgnore         = 1
	sysCloseRange     = 436
	closeRangeCloexec = 4
	sigSetMask        = 2
	signalSetBytes    = 8
	signalLast        = 64
	capabilityVersion = 0x20080522
)

// A system call. keep holds the memory that the arguments point to.
type step struct {
	what      string
	call      uintptr
	arguments [6]uintptr
	keep      []any
}

type steps []step

// add appends a call whose arguments are numbers, paths (string) and pointers.
func (all *steps) add(what string, call uintptr, arguments ...any) {
	one := step{what: what, call: call, keep: arguments}
	for index, argument := range arguments {
		switch value := argument.(type) {
		case int:
			one.arguments[index] = uintptr(value)
		case uintptr:
			one.arguments[index] = value
		case unsafe.Pointer:
			one.arguments[index] = uintptr(value)
		case string:
			text, err := syscall.BytePtrFromString(value)
			if err != nil {
				panic(err)
			}
			one.keep = append(one.keep, text)
			one.arguments[index] = uintptr(unsafe.Pointer(text))
		default:
			panic("no argument of a system call")
		}
	}
	*all = append(*all, one)
}

// planOf lists the steps.
func planOf(wanted order) (steps, error) {
	var all steps
	all.add("leave the session", syscall.SYS_SETSID)
	if needsUserNamespace(wanted) {
		if err := all.mapUser(); err != nil {
			return nil, err
		}
	}
	switch {
	case wanted.root == "":
		all.add("leave the directory", syscall.SYS_CHDIR, "/")
	case wanted.zygote:
		if err := all.enterZygoteRoot(wanted); err != nil {
			return nil, err
		}
	default:
		all.enterRoot(wanted)
	}
	if err := all.setLimits(wanted); err != nil {
		return nil, err
	}
	if err := all.dropRights(wanted); err != nil {
		return nil, err
	}
	all.add("give it its output", syscall.SYS_DUP2, 2, 1)
	all.add("close descriptors", sysCloseRange, 3+wanted.handed, ^uintptr(0)>>32, closeRangeCloexec)
	all.resetSignals()
	all.add("unblock signals", syscall.SYS_RT_SIGPROCMASK, sigSetMask, unsafe.Pointer(new(uint64)), 0, signalSetBytes)

	arguments, err := syscall.SlicePtrFromStrings(wanted.command)
	if err != nil {
		return nil, err
	}
	environment, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return nil, err
	}
	all.add("start "+wanted.command[0], syscall.SYS_EXECVE, wanted.command[0],
		unsafe.Pointer(&arguments[0]), unsafe.Pointer(&environment[0]))
	return all, nil
}

// needsUserNamespace reports whether the caller is not root: such a caller may create namespaces only inside a user
// namespace, as its root while that lasts.
func needsUserNamespace(wanted order) bool {
	return wanted.root != "" && os.Geteuid() != 0
}

// mapUser makes the caller's user the root of the user namespace.
func (all *steps) mapUser() error {
	// Opening a file returns the lowest free number, here and in the copy.
	next, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(next)
	for _, file := range []struct{ path, text string }{
		{"/proc/self/setgroups", "deny"},
		{"/proc/self/uid_map", fmt.Sprintf("0 %d 1", os.Geteuid())},
		{"/proc/self/gid_map", fmt.Sprintf("0 %d 1", os.Getegid())},
	} {
		what := "write " + file.path
		all.add(what, syscall.SYS_OPEN, file.path, syscall.O_WRONLY)
		all.add(what, syscall.SYS_WRITE, next, file.text, len(file.text))
		all.add(what, syscall.SYS_CLOSE, next)
	}
	return nil
}

// makeDevice shows a node in root that is created on a file system in memory, mounted where proc comes later: nodes
// are not allowed on the disk that root is on. The node exists as long as it is mounted.
func (all *steps) makeDevice(device ownDevice, uid int, inRoot func(string) string) {
	const mode = syscall.S_IFCHR | 0o600
	directory, node := inRoot("proc"), inRoot("proc/node")
	all.add("mount memory for "+device.path, syscall.SYS_MOUNT, "tmpfs", directory, "tmpfs",
		syscall.MS_NOSUID|syscall.MS_NOEXEC, "mode=0700,size=4k")
	all.add("make a node of "+device.path, syscall.SYS_MKNOD, node, mode, device.number)
	all.add("give away the node of "+device.path, syscall.SYS_CHOWN, node, uid, uid)
	all.add("mount "+device.path, syscall.SYS_MOUNT, node, inRoot(device.path), "", syscall.MS_BIND, "")
	all.add("leave the memory for "+device.path, syscall.SYS_UMOUNT2, directory, syscall.MNT_DETACH)
}

func (all *steps) setLimits(wanted order) error {
	limit := func(which int, max uint64) error {
		// A process may not raise the limit it has inherited.
		var own syscall.Rlimit
		if err := syscall.Getrlimit(which, &own); err != nil {
			return err
		}
		if max > own.Max {
			max = own.Max
		}
		all.add("limit", syscall.SYS_SETRLIMIT, which, unsafe.Pointer(&syscall.Rlimit{Cur: max, Max: max}))
		return nil
	}
	limits := map[int]uint64{
		syscall.RLIMIT_CORE:   0,
		syscall.RLIMIT_NOFILE: openFilesMax,
		syscall.RLIMIT_FSIZE:  wanted.fileBytes,
	}
	if wanted.uid >= 0 {
		limits[rlimitNproc] = threadsMax
		if wanted.zygote {
			limits[rlimitNproc] = threadsOfChildrenMax
		}
	}
	for which, max := range limits {
		if err := limit(which, max); err != nil {
			return err
		}
	}
	all.add("set its priority", syscall.SYS_SETPRIORITY, syscall.PRIO_PROCESS, 0, wanted.niceness)
	return nil
}

func (all *steps) dropRights(wanted order) error {
	all.add("refuse new privileges", syscall.SYS_PRCTL, prSetNoNewPrivs, 1)
	// A caller without root or a user namespace has no capabilities to drop, and can no longer gain any.
	if wanted.root != "" || os.Geteuid() == 0 {
		last, err := capabilityLast()
		if err != nil {
			return err
		}
		for capability := 0; capability <= last; capability++ {
			all.add("drop a capability", syscall.SYS_PRCTL, prCapbsetDrop, capability)
		}
	}
	if wanted.uid >= 0 {
		groups := append(wanted.groups, 0)
		all.add("set its groups", syscall.SYS_SETGROUPS, len(wanted.groups), unsafe.Pointer(&groups[0]))
		all.add("set its group", syscall.SYS_SETRESGID, wanted.uid, wanted.uid, wanted.uid)
		all.add("set its user", syscall.SYS_SETRESUID, wanted.uid, wanted.uid, wanted.uid)
	}
	all.add("drop ambient capabilities", syscall.SYS_PRCTL, prCapAmbient, prCapAmbientClear)
	filter := spaceFilter()
	all.add("filter its system calls", syscall.SYS_PRCTL, prSetSeccomp, seccompModeFilter,
		unsafe.Pointer(&syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
	header := &[2]uint32{capabilityVersion}
	all.add("drop its capabilities", syscall.SYS_CAPSET, unsafe.Pointer(header), unsafe.Pointer(new([6]uint32)))
	return nil
}

// resetSignals removes the handlers of Go's runtime, whose code is gone once QEMU has started. A write beyond the
// limit on a file's size is an error for QEMU and does not kill it.
func (all *steps) resetSignals() {
	byDefault, ignored := unsafe.Pointer(new([4]uint64)), unsafe.Pointer(&[4]uint64{sigIgnore})
	for signal := 1; signal <= signalLast; signal++ {
		action := byDefault
		if signal == int(syscall.SIGXFSZ) {
			action = ignored
		}
		if signal != int(syscall.SIGKILL) && signal != int(syscall.SIGSTOP) {
			all.add("reset a signal", syscall.SYS_RT_SIGACTION, signal, action, 0, signalSetBytes)
		}
	}
}

func capabilityLast() (int, error) {
	text, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
