// Programs inside the namespaces of the sandbox's init: a thread of its own has entered them, and starts every program
// from then on. The thread serves nothing else and ends with the machine.
//
// The agent itself is in a control group below the init's, so that what it starts is there too: systemd moves only
// programs of its own groups, and no program may be in a group that has others below it.

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// enteredNamespaces are those that a program needs to find in the init what it expects.
var enteredNamespaces = []string{"mnt", "cgroup", "pid"}

// inside starts programs next to an init.
type inside struct {
	wanted chan insideStart
}

type insideStart struct {
	path       string
	argv       []string
	attributes *syscall.ProcAttr
	started    chan<- insideStarted
}

type insideStarted struct {
	pid int
	err error
}

// enter makes a thread enter the namespaces of a process.
func enter(pid int) (*inside, error) {
	i := &inside{wanted: make(chan insideStart)}
	entered := make(chan error)
	go func() {
		// Never unlocked: no other goroutine may run on a thread in these namespaces.
		runtime.LockOSThread()
		err := enterNamespaces(pid)
		entered <- err
		if err != nil {
			return
		}
		for wanted := range i.wanted {
			pid, err := syscall.ForkExec(wanted.path, wanted.argv, wanted.attributes)
			wanted.started <- insideStarted{pid, err}
		}
	}()
	return i, <-entered
}

func enterNamespaces(pid int) error {
	if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	var opened []int
	defer func() {
		for _, fd := range opened {
			syscall.Close(fd)
		}
	}()
	// All are opened first: afterwards /proc is another.
	for _, kind := range enteredNamespaces {
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, kind)
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open "+path, err)
		}
		opened = append(opened, fd)
	}
	for n, fd := range opened {
		if _, _, errno := syscall.RawSyscall(sysSetns, uintptr(fd), 0, 0); errno != 0 {
			return fmt.Errorf("enter the %s namespace: %w", enteredNamespaces[n], errno)
		}
	}
	return nil
}

// start starts a program and returns its id in the agent's namespace.
func (i *inside) start(path string, argv []string, attributes *syscall.ProcAttr) (pid int, err error) {
	answer := make(chan insideStarted, 1)
	i.wanted <- insideStart{path: path, argv: argv, attributes: attributes, started: answer}
	started := <-answer
	return started.pid, started.err
}

// innerPidOf returns the id of a process in the innermost of its namespaces; 0 if it is gone.
func innerPidOf(pid int) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "NSpid:") {
			fields := strings.Fields(line)
			inner, _ := strconv.Atoi(fields[len(fields)-1])
			return inner
		}
	}
	return 0
}
