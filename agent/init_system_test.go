// The init of a sandbox: which of its ends are in order, and programs beside it. Real ones run in machines, in
// test/e2e/init-system.vm.test.ts.

package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"bhatti/agent/wire"
)

func TestAnInitEndsInOrderIfItOrTheHostHasAskedForIt(t *testing.T) {
	const exited3 = 3 << 8
	for _, c := range []struct {
		status   syscall.WaitStatus
		sent     syscall.Signal
		isWanted bool
		want     bool
	}{
		{status: syscall.WaitStatus(syscall.SIGHUP), want: true}, // a restart, as the kernel tells it
		{status: syscall.WaitStatus(syscall.SIGINT), want: true}, // a power off
		{status: exited3, want: false},
		{status: syscall.WaitStatus(syscall.SIGKILL), want: false},
		{status: syscall.WaitStatus(syscall.SIGINT), sent: syscall.SIGINT, want: false},
		{status: syscall.WaitStatus(syscall.SIGKILL), isWanted: true, want: true},
	} {
		p := &process{agent: &agent{isEndingInit: c.isWanted}, child: &child{status: c.status}, isInit: true}
		p.sent = sentSignal{number: c.sent, by: wire.ByClient}
		if got := p.endedInOrder(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestAProgramBesideAnInitIsInItsNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces")
	}
	start := func(start starter, flags uintptr) *child {
		null, err := nullFile()
		must(t, err)
		files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
		c, err := start("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{
			Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: flags},
		})
		must(t, err)
		t.Cleanup(func() {
			c.killSession()
			<-c.exited
		})
		return c
	}
	first := start(theReaper.startOutside, syscall.CLONE_NEWPID|syscall.CLONE_NEWNS|cloneNewCgroup)
	i, err := enter(first.pid)
	must(t, err)
	defer close(i.wanted)
	theReaper.setInside(i)
	defer theReaper.setInside(nil)
	beside, outside := start(theReaper.start, 0), start(theReaper.startOutside, 0)
	space := func(pid int, kind string) string {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		must(t, err)
		return name
	}
	for _, kind := range enteredNamespaces {
		own := space(first.pid, kind)
		if space(beside.pid, kind) != own || space(outside.pid, kind) == own {
			t.Errorf("%s: %s %s %s", kind, own, space(beside.pid, kind), space(outside.pid, kind))
		}
	}
	if beside.innerPid != 2 || outside.innerPid != outside.pid {
		t.Errorf("%d is %d, %d is %d", beside.pid, beside.innerPid, outside.pid, outside.innerPid)
	}
}

func TestACommandBesideAnInitThatHasEndedIsToldThatTheSandboxIsSwitchingOff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make namespaces")
	}
	null, err := nullFile()
	must(t, err)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	init, err := theReaper.startOutside("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{
		Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
	})
	must(t, err)
	i, err := enter(init.pid)
	must(t, err)
	defer close(i.wanted)
	h := personalised(t)
	h.agent.mu.Lock()
	h.agent.init = &process{child: init}
	h.agent.mu.Unlock()
	theReaper.setInside(i)
	defer theReaper.setInside(nil)
	ask := func() outcome {
		return h.ask("process_start", map[string]any{"argv": []string{"true"}, "user": "root", "cwd": "/"})
	}
	if o := ask(); o.Error != nil {
		t.Fatalf("%+v", o.Error)
	}
	init.killSession()
	<-init.exited
	if o := ask(); o.Error == nil || o.Error.Code != wire.Unavailable {
		t.Errorf("%+v", o.Error)
	}
}

func TestAnInitWhoseRequestToEndBlocksIsKilledInTime(t *testing.T) {
	null, err := nullFile()
	must(t, err)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	c, err := theReaper.startOutside("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{
		Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	must(t, err)
	never := make(chan struct{})
	defer close(never)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p := &process{child: c, argv: []string{"sleep"}}
		p.endWithin(50*time.Millisecond, func() { <-never })
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		c.killSession()
		t.Fatal("it is waited for without a deadline")
	}
	if c.status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", c.status)
	}
}
