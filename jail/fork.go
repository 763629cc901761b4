// Makes the process that becomes QEMU. Starting this program a second time inside the namespaces would be simpler,
// but Go's runtime takes longer to start than all the rest together. So the second process is not a program of its
// own: it runs the steps in our memory, in which Go's runtime does not work, while we are suspended.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"
)

// victim is far above 0, the score of the daemon and the host's services: a host without memory kills a sandbox
// first.
const victim = "500"

func start(wanted order) (pid int, err error) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(victim), 0); err != nil {
		return 0, err
	}
	if wanted.alone && wanted.uid > 0 {
		if err := refuseOthersOf(wanted.uid); err != nil {
			return 0, err
		}
	}
	if wanted.cgroup != "" {
		if err := os.WriteFile(filepath.Join(wanted.cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return 0, fmt.Errorf("join the control group: %w", err)
		}
	}
	all, err := planOf(wanted)
	if err != nil {
		return 0, err
	}
	return run(all, namespacesOf(wanted))
}

func namespacesOf(wanted order) uintptr {
	if wanted.root == "" {
		return 0
	}
	flags := uintptr(syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET)
	if !wanted.zygote {
		flags |= syscall.CLONE_NEWPID
	}
	if needsUserNamespace(wanted) {
		flags |= syscall.CLONE_NEWUSER
	}
	return flags
}

func vfork(flags uintptr) (pid, errno uintptr)

// Written by the new process, so it must not be on the shared stack.
var failure struct {
	step  *step
	errno uintptr
}

// run runs the steps in a new process; the last one executes another program. No signal may reach the process
// before, since its handlers are ours.
func run(all steps, namespaces uintptr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	everySignal, before := ^uint64(0), uint64(0)
	blockSignals(&everySignal, &before)
	pid, errno := runAlone(all, namespaces|syscall.CLONE_VM|syscall.CLONE_VFORK|uintptr(syscall.SIGCHLD))
	blockSignals(&before, &everySignal)
	runtime.KeepAlive(all)
	if errno != 0 {
		return 0, fmt.Errorf("make namespaces: %w", syscall.Errno(errno))
	}
	if failure.step != nil {
		return 0, fmt.Errorf("%s: %w", failure.step.what, syscall.Errno(failure.errno))
	}
	return int(pid), nil
}

//go:noinline
func runAlone(all steps, flags uintptr) (pid, errno uintptr) {
	pid, errno = vfork(flags)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	for index := range all {
		one := &all[index]
		_, _, errno := syscall.RawSyscall6(one.call, one.arguments[0], one.arguments[1], one.arguments[2],
			one.arguments[3], one.arguments[4], one.arguments[5])
		if errno != 0 {
			failure.step, failure.errno = one, uintptr(errno)
			break
		}
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

func blockSignals(mask, before *uint64) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(mask)),
		uintptr(unsafe.Pointer(before)), signalSetBytes, 0, 0)
}
