// The stub that becomes the init: this program again, as the first process of the new namespaces. It mounts what the
// init expects to find, and then is the init.

package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

const (
	initStubName = "lohar-init"
	initStubTell = 3 // the descriptor that tells the agent of a failure, and closes when the init runs
)

func runInitStub(argv []string) int {
	// The namespaces of the thread that calls exec become the init's.
	runtime.LockOSThread()
	syscall.CloseOnExec(initStubTell)
	err := fillNamespaces()
	if err == nil {
		err = os.Chdir("/")
	}
	if err == nil {
		err = syscall.Exec(argv[0], argv, os.Environ())
	}
	_, _ = syscall.Write(initStubTell, []byte(err.Error()))
	return 1
}

func fillNamespaces() error {
	const hidden = noSetuid | noDevices | noPrograms
	console, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		run  func() error
	}{
		{"join the control group", func() error { return os.WriteFile(initGroup+"/cgroup.procs", []byte("0"), 0) }},
		{"a view of the control groups", func() error { return syscall.Unshare(cloneNewCgroup) }},
		// Mounts on a private mount stay here.
		{"keep /sys", func() error { return makePrivate("/sys") }},
		{"keep the groups", func() error { return makePrivate(controlGroups) }},
		{"leave the groups", func() error { return syscall.Unmount(controlGroups, syscall.MNT_DETACH) }},
		{"mount the groups", func() error { return syscall.Mount("cgroup2", controlGroups, "cgroup2", hidden, "") }},
		{"protect /sys", func() error {
			return syscall.Mount("", "/sys", "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY|hidden, "")
		}},
		{"keep /dev", func() error { return makePrivate("/dev") }},
		{"make the console", func() error { return syscall.Mount(console, "/dev/console", "", syscall.MS_BIND, "") }},
		{"keep /proc", func() error { return makePrivate("/proc") }},
		{"mount /proc", func() error { return syscall.Mount("proc", "/proc", "proc", hidden, "") }},
	}
	for _, step := range steps {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func makePrivate(path string) error { return syscall.Mount("", path, "", syscall.MS_PRIVATE, "") }
