// A user id belongs to one machine at a time: a process with the same id could stop the machine and read its
// memory.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// refuseOthersOf fails while any process of the host has the user id. Asking the kernel which processes that user
// could signal takes less than a microsecond each, so only those are examined.
func refuseOthersOf(uid int) error {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	found, err := canSignal(uid, names)
	if err != nil {
		return fmt.Errorf("look for processes of user id %d: %w", uid, err)
	}
	for _, name := range found {
		// A process that has exited meanwhile cannot be read.
		if status, err := os.ReadFile(filepath.Join(name, "status")); err == nil && isAliveAs(uid, string(status)) {
			return fmt.Errorf("user id %d is in use by process %s", uid, filepath.Base(name))
		}
	}
	return nil
}

// canSignal asks the kernel as that user, in this thread alone. The saved user id stays root's, to switch back.
func canSignal(uid int, names []string) (found []string, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setUser(uid); err != nil {
		return nil, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_KILL, uintptr(pid), 0, 0); errno == 0 {
			found = append(found, name)
		}
	}
	return found, setUser(0)
}

// setUser changes the real and the effective user id of this thread.
func setUser(uid int) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// isAliveAs reports whether one of the process's four user ids is this one. A zombie counts as dead.
func isAliveAs(uid int, status string) bool {
	fields := map[string]string{}
	for _, line := range strings.Split(status, "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	if strings.HasPrefix(fields["State"], "Z") && fields["Threads"] == "1" {
		return false
	}
	for _, id := range strings.Fields(fields["Uid"]) {
		if id == strconv.Itoa(uid) {
			return true
		}
	}
	return false
}
