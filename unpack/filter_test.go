// The kernel is asked for what the filter refuses, by a process of its own.

package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestFilterRefusesNamespacesSocketsAndMounts(t *testing.T) {
	if os.Getenv("FILTERED") == "" {
		command := exec.Command(os.Args[0], "-test.run", t.Name())
		command.Env = append(os.Environ(), "FILTERED=1")
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	// For all threads, as the work has it from its start.
	if _, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0); errno != 0 {
		t.Fatal(errno)
	}
	if err := filterCalls(); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); err != syscall.EPERM {
		t.Errorf("a socket: %v", err)
	}
	if err := syscall.Unshare(syscall.CLONE_NEWUSER); err != syscall.EPERM {
		t.Errorf("leave the user namespace: %v", err)
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_PRIVATE, ""); err != syscall.EPERM {
		t.Errorf("a mount: %v", err)
	}
	for _, flags := range []uintptr{syscall.CLONE_NEWUSER, syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET} {
		command := exec.Command("/bin/true")
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if err := command.Run(); err == nil {
			t.Errorf("a process with the namespaces %x", flags)
		}
	}
	if _, _, errno := syscall.RawSyscall(sysClone3, 0, 0, 0); errno != syscall.ENOSYS {
		t.Errorf("clone3: %v", errno)
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Errorf("a program: %v", err)
	}
}
