// The boot from the kernel's first instruction in user space to a machine that can serve: a table of named steps.
//
//	initramfs ── modules ── /dev/vda ── switch root ── mounts ── kit ── lo ── channel
//
// A necessary step that fails ends the boot; other failures are reported, and the guest continues.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

type bootStep struct {
	name        string
	isNecessary bool
	run         func() error
}

var bootSteps = []bootStep{
	{"early mounts", true, func() error { return mountAll(earlyMounts) }},
	{"console", false, openConsole},
	{"kernel modules", true, func() error { return loadModules("/modules") }},
	{"probe", false, answerProbe},
	{"root disk", true, func() error { return awaitPath(rootDevice, deviceDeadline) }},
	{"repair", false, repairRoot},
	{"switch root", true, switchRoot},
	{"mounts", false, func() error { return mountAll(lateMounts) }},
	{"run", false, func() error { return keepRun(runFolder) }},
	{"kit", false, mountKit},
	{"device links", false, func() error { return linkDevices("/dev") }},
	{"limits", false, setLimits},
	{"kernel settings", false, setKernelDefaults},
	{"runtime", false, calmRuntime},
	{"loopback", false, func() error { return withLink("lo", link.up) }},
	{"folders", false, func() error { return makeTmp("/") }},
	{"power commands", false, func() error { return linkPowerCommands("/") }},
}

// boot runs the steps. It returns the failures of the steps that were not necessary.
func boot(steps []bootStep) ([]string, error) {
	var failures []string
	for _, step := range steps {
		err := step.run()
		if err == nil {
			continue
		}
		if step.isNecessary {
			return failures, fmt.Errorf("%s: %w", step.name, err)
		}
		failures = append(failures, fmt.Sprintf("%s: %v", step.name, err))
		report("boot step %s failed: %v", step.name, err)
	}
	return failures, nil
}

// report writes to the console, the only log.
func report(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "lohar: "+format+"\n", values...)
}

// occupyStandardFiles fills descriptors 0 to 2 if the kernel found no console to open, so that no other file gets
// them.
func occupyStandardFiles() {
	for fd := 0; fd <= 2; fd++ {
		var about syscall.Stat_t
		if syscall.Fstat(fd, &about) == syscall.EBADF {
			_, _ = syscall.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		}
	}
}

func openConsole() error {
	console, err := syscall.Open("/dev/console", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open /dev/console", err)
	}
	defer syscall.Close(console)
	for fd := 0; fd <= 2; fd++ {
		if err := syscall.Dup3(console, fd, 0); err != nil {
			return os.NewSyscallError("dup the console", err)
		}
	}
	return nil
}

// answerProbe ends a boot that only tests whether a guest runs under this host's accelerator: the host reads this
// text on the console. It must equal probeWords in src/machine/accelerator.ts.
func answerProbe() error {
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if !hasArgument(string(arguments), "bhatti.probe") {
		return nil
	}
	fmt.Fprintln(os.Stderr, "bhatti-probe-ok")
	return syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// loadModules inserts the modules that the file `order` in the folder lists, dependencies first.
func loadModules(folder string) error {
	order, err := os.ReadFile(filepath.Join(folder, "order"))
	if os.IsNotExist(err) {
		return nil // The kernel has everything built in.
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	none := [1]byte{}
	_, _, errno := syscall.Syscall(sysFinitModule, file.Fd(), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}

const deviceDeadline = 10 * time.Second

// awaitPath waits until a device's node exists.
func awaitPath(path string, deadline time.Duration) error {
	for end := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s did not appear in %v", path, deadline)
		}
	}
}

const newRoot = "/newroot"

// rootOptions keep the filesystem from background work, which would run again in every clone: image and growth
// leave nothing to initialise, and the bitmaps of free blocks are read when needed.
const rootOptions = "noinit_itable,no_prefetch_block_bitmaps"

// switchRoot makes the disk the root and deletes the rest of the initramfs.
func switchRoot() error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(rootDevice, newRoot, "ext4", syscall.MS_NOATIME, rootOptions); err != nil {
		return fmt.Errorf("mount %s: %w", rootDevice, err)
	}
	for _, m := range earlyMounts {
		target := newRoot + m.target
		if err := ownDirectory(target); err != nil {
			return err
		}
		if err := syscall.Mount(m.target, target, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	if err := os.RemoveAll("/modules"); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	return os.Chdir("/")
}

// ownDirectory replaces anything but a directory: before the root is switched, an image's link would lead elsewhere.
func ownDirectory(path string) error {
	if about, err := os.Lstat(path); err == nil && !about.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.MkdirAll(path, 0o755)
}

// setLimits raises the limits that commands inherit. The agent needs no protection from the kernel's out-of-memory
// killer, which never kills the machine's first process.
func setLimits() error {
	syscall.Umask(0o022)
	files := syscall.Rlimit{Cur: 65536, Max: 1048576}
	return os.NewSyscallError("limit of open files", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
}

// setKernelDefaults makes a crash of this program end the machine: the kernel panics when its first process dies,
// and a hung guest would look like a slow one.
func setKernelDefaults() error {
	return os.WriteFile("/proc/sys/kernel/panic", []byte("-1"), 0)
}

// monitorSlackNs is how late the runtime's own monitor may be; a goroutine that waits for another's system call may
// be delayed as long.
const monitorSlackNs = "4000000"

// calmRuntime makes the monitor thread of Go's runtime wake together with other timers. While a command runs it
// would sleep for 20 µs at a time, which costs a sixth of an emulated processor's work for a short command. The
// monitor is the first thread that a Go program starts.
func calmRuntime() error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	monitor := 0
	for _, entry := range entries {
		if thread, err := strconv.Atoi(entry.Name()); err == nil && thread != os.Getpid() && (monitor == 0 || thread < monitor) {
			monitor = thread
		}
	}
	if monitor == 0 {
		return nil
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", monitor), []byte(monitorSlackNs), 0)
}
