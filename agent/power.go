// poweroff, reboot, halt and shutdown inside the guest: names of this program, which under such a name signals the
// first process.
//
// They are links to the first process's own file, so that they match it whatever image it runs on. Only root can
// follow them.

package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The signals that request it from an init, the same as systemd's.
const (
	signalHalt     = syscall.Signal(37)
	signalPowerOff = syscall.Signal(38)
	signalReboot   = syscall.Signal(39)
)

// powerCommands are the default signals of the names.
var powerCommands = map[string]syscall.Signal{
	"poweroff": signalPowerOff, "halt": signalPowerOff, "shutdown": signalPowerOff, "reboot": signalReboot,
}

const powerFolder = "usr/local/sbin"

// linkPowerCommands creates the links. It keeps files that an image or a user has put there.
func linkPowerCommands(root string) error {
	folder := filepath.Join(root, powerFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name := range powerCommands {
		if err := os.Symlink("/proc/1/exe", filepath.Join(folder, name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// unlinkPowerCommands removes the links for an init that has commands of its own: they would name it. Other files stay.
func unlinkPowerCommands(root string) {
	for name := range powerCommands {
		path := filepath.Join(root, powerFolder, name)
		if target, err := os.Readlink(path); err == nil && target == "/proc/1/exe" {
			_ = os.Remove(path)
		}
	}
}

// servePowerCommands handles the signals, which only root can send.
func servePowerCommands(r *reaper, store func() error) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, signalHalt, signalPowerOff, signalReboot)
	command := syscall.LINUX_REBOOT_CMD_POWER_OFF
	if <-asked == signalReboot {
		command = syscall.LINUX_REBOOT_CMD_RESTART
	}
	if err := store(); err != nil {
		report("%v", err)
	}
	endMachine(r, command)
}

// powerDeadline is longer than the first process takes to end all others.
const powerDeadline = 20 * time.Second

// runPowerCommand runs the program under one of the names. It returns the exit code.
func runPowerCommand(name string, args []string) int {
	asked, err := parsePowerCommand(name, args)
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 2
	case os.Geteuid() != 0:
		fmt.Fprintf(os.Stderr, "%s: only root may do that; try: sudo %s\n", name, name)
		return 1
	}
	if err := syscall.Kill(1, asked); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	time.Sleep(powerDeadline)
	fmt.Fprintf(os.Stderr, "%s: the machine still runs\n", name)
	return 1
}

// parsePowerCommand accepts the usual flags, and as a time only now. It accepts a message to users but does not
// send it.
func parsePowerCommand(name string, args []string) (syscall.Signal, error) {
	asked := powerCommands[name]
	isNow := false
	for _, arg := range args {
		switch arg {
		case "-r", "--reboot":
			asked = signalReboot
		case "-h", "-P", "-p", "-H", "--poweroff", "--halt":
			asked = signalPowerOff
		case "-f", "-ff", "--force", "-n", "-w", "-q", "--no-wall", "--no-sync":
		case "now", "+0":
			isNow = true
		default:
			if isNow && !strings.HasPrefix(arg, "-") && name == "shutdown" {
				return asked, nil
			}
			return 0, fmt.Errorf("%q is not understood; it happens at once: %s [-r | -h] [now]", arg, name)
		}
	}
	return asked, nil
}
