// The second process, the first of its pid namespace. It makes the root directory that the work sees: a file system
// in memory with copies of a few programs, the work's directory, and a /proc with nothing but these processes. Then
// it starts the work in a user namespace with one user id, as a user who is not its root, so without capabilities.

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

const (
	// worker is the user id of the work in its own namespace.
	worker       = 1000
	niceness     = 10
	openFilesMax = 4096
	// Counts all unpackers at once, which have one user id.
	processesMax = 512
	closed       = syscall.MS_NOSUID | syscall.MS_NODEV
)

func makeRoom(directory string, isRootless bool) error {
	wanted, err := readRequest(directory)
	if err != nil {
		return err
	}
	root, inside := filepath.Join(directory, "room"), filepath.Join(directory, "work")
	if err := mountAll(root, inside); err != nil {
		return err
	}
	if err := fillRoom(root, directory, wanted); err != nil {
		return err
	}
	if err := enterRoom(root); err != nil {
		return err
	}
	if err := setLimits(wanted.Limits, isRootless); err != nil {
		return err
	}
	command := exec.Command(toolPath("unpack"), "work")
	command.Env, command.Stdin, command.Stdout, command.Stderr = []string{}, os.Stdin, os.Stdout, os.Stderr
	for index := 0; index < len(wanted.Layers)+len(wanted.Sources); index++ {
		command.ExtraFiles = append(command.ExtraFiles, os.NewFile(uintptr(firstBlob+index), "blob"))
	}
	// The namespace's user 0 is the caller, if that is not the host's root.
	host := wanted.UID
	if isRootless {
		host = 0
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: worker, HostID: host, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: worker, HostID: host, Size: 1}},
		Credential:  &syscall.Credential{Uid: worker, Gid: worker, NoSetGroups: true},
	}
	if err := refusePrivileges(); err != nil {
		return err
	}
	if err := command.Run(); err != nil {
		return endOf(err)
	}
	return nil
}

func mountAll(root, inside string) error {
	mount := func(source, target, kind string, flags uintptr, options string) error {
		if err := syscall.Mount(source, target, kind, flags, options); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
		return nil
	}
	// Keeps mounts here invisible outside, and outside mounts invisible here.
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", root, "tmpfs", closed, "mode=0755,size=64m"); err != nil {
		return err
	}
	for _, name := range []string{"work", "proc", "tools"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	target := filepath.Join(root, "work")
	if err := mount(inside, target, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	const remount = syscall.MS_REMOUNT | syscall.MS_BIND | closed | syscall.MS_NOEXEC
	// A user namespace may not change how times of access are kept; then a few are written for nothing.
	if syscall.Mount("none", target, "", remount|syscall.MS_NOATIME, "") != nil {
		if err := mount("none", target, "", remount|syscall.MS_RELATIME, ""); err != nil {
			return err
		}
	}
	return mount("proc", filepath.Join(root, "proc"), "proc", closed|syscall.MS_NOEXEC, "subset=pid")
}

// fillRoom copies the programs and what the work has to know.
func fillRoom(root, directory string, wanted request) error {
	for _, name := range toolsFor(wanted) {
		path, err := exec.LookPath(name)
		if err != nil && wanted.Layout == "" && name == "zstd" {
			continue // The stream may be compressed otherwise.
		}
		if err != nil {
			return fmt.Errorf("the program %s is not installed", name)
		}
		if err := copyFile(path, filepath.Join(root, toolPath(name))); err != nil {
			return err
		}
		libraries, err := librariesOf(path)
		if err != nil {
			return err
		}
		for _, library := range libraries {
			if err := copyFile(library, filepath.Join(root, library)); err != nil {
				return err
			}
		}
	}
	for from, to := range map[string]string{
		self: toolPath("unpack"), filepath.Join(directory, "request.json"): requestPath, os.DevNull: toolPath("none"),
	} {
		if err := copyFile(from, filepath.Join(root, to)); err != nil {
			return err
		}
	}
	const remount = syscall.MS_REMOUNT | syscall.MS_BIND | syscall.MS_RDONLY | closed
	if err := syscall.Mount("none", root, "", remount, ""); err != nil {
		return fmt.Errorf("close the room: %w", err)
	}
	return nil
}

func toolsFor(wanted request) []string {
	if len(wanted.Sources) > 0 {
		return []string{"e2fsck"}
	}
	tools := []string{"mke2fs", "e2fsck", "debugfs"}
	isZstd := wanted.Layout == ""
	for _, one := range wanted.Layers {
		isZstd = isZstd || one.Compression == "zstd"
	}
	if isZstd {
		tools = append(tools, "zstd")
	}
	return tools
}

var libraryLine = regexp.MustCompile(`(/\S+) \(0x`)

// librariesOf asks the program's own loader, as ldd does.
func librariesOf(program string) ([]string, error) {
	command := exec.Command(program)
	command.Env = []string{"LD_TRACE_LOADED_OBJECTS=1"}
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("the libraries of %s: %w", program, err)
	}
	var found []string
	for _, match := range libraryLine.FindAllStringSubmatch(string(output), -1) {
		found = append(found, match[1])
	}
	return found, nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if os.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = io.Copy(target, source)
	return err
}

func enterRoom(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// The former root is mounted over the new one and then unmounted.
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return syscall.Sethostname([]byte("unpack"))
}

type limit struct {
	which int
	max   uint64
}

func setLimits(wanted limits, isRootless bool) error {
	all := []limit{
		{syscall.RLIMIT_CORE, 0},
		{syscall.RLIMIT_NOFILE, openFilesMax},
		{syscall.RLIMIT_CPU, uint64(wanted.Seconds)},
		{syscall.RLIMIT_FSIZE, uint64(wanted.UnpackedBytes)*2 + diskBytesMin + uint64(wanted.DiskBytes)},
		{rlimitAddresses, uint64(wanted.MemoryBytes)},
	}
	// Another caller's own processes count too.
	if !isRootless {
		all = append(all, limit{rlimitProcesses, processesMax})
	}
	for _, one := range all {
		var own syscall.Rlimit
		if err := syscall.Getrlimit(one.which, &own); err != nil {
			return err
		}
		if one.max > own.Max {
			one.max = own.Max
		}
		if err := syscall.Setrlimit(one.which, &syscall.Rlimit{Cur: one.max, Max: one.max}); err != nil {
			return fmt.Errorf("limit %d: %w", one.which, err)
		}
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness)
}

// refusePrivileges is for this thread and what it starts: no program that it runs can have more rights than it has.
func refusePrivileges() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0); errno != 0 {
		return fmt.Errorf("refuse new privileges: %w", errno)
	}
	return nil
}
