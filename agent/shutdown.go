// The shutdown of the machine.

package main

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	terminateDeadline = 3 * time.Second
	killDeadline      = 2 * time.Second
)

// endMachine ends every process, syncs everything and powers the machine off or restarts it.
func endMachine(r *reaper, command int) {
	atomic.StoreInt32(&r.endsAll, 1)
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT)
	r.awaitIdle(terminateDeadline)
	_ = syscall.Kill(-1, syscall.SIGKILL)
	r.awaitIdle(killDeadline)
	leaveKernel(command)
}

func switchOff() { leaveKernel(syscall.LINUX_REBOOT_CMD_POWER_OFF) }

func leaveKernel(command int) {
	syscall.Sync()
	unmountAll()
	syscall.Sync()
	_ = syscall.Reboot(command)
	select {}
}

// unmountAll unmounts in reverse order. Busy filesystems become read-only, the root always.
func unmountAll() {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(table)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 3 || !strings.HasPrefix(fields[0], "/dev/") {
			continue
		}
		target := unescapeMount(fields[1])
		if target == "/" || syscall.Unmount(target, 0) != nil {
			_ = syscall.Mount("", target, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
		}
	}
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(path string) string { return mountEscapes.Replace(path) }
