// The mount tables of the guest.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

type mount struct {
	kind    string
	target  string
	flags   uintptr
	options string
}

// runFolder is mounted by keepRun.
const runFolder = "/run"

const (
	noDevices  = syscall.MS_NODEV
	noPrograms = syscall.MS_NOEXEC
	noSetuid   = syscall.MS_NOSUID
)

// earlyMounts are made in the initramfs and moved to the disk's root.
var earlyMounts = []mount{
	{"devtmpfs", "/dev", noSetuid, "mode=0755"},
	{"proc", "/proc", noSetuid | noDevices | noPrograms, ""},
	{"sysfs", "/sys", noSetuid | noDevices | noPrograms, ""},
}

var lateMounts = []mount{
	{"devpts", "/dev/pts", noSetuid | noPrograms, "mode=0620,gid=5,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", noSetuid | noDevices, "mode=1777"},
	{"cgroup2", "/sys/fs/cgroup", noSetuid | noDevices | noPrograms, "nsdelegate"},
}

// mountAll tries every mount and returns those that failed.
func mountAll(mounts []mount) error {
	var failures []error
	for _, m := range mounts {
		if err := mountOne(m); err != nil {
			failures = append(failures, fmt.Errorf("mount %s: %w", m.target, err))
		}
	}
	switch len(failures) {
	case 0:
		return nil
	case 1:
		return failures[0]
	}
	return fmt.Errorf("%v", failures)
}

func mountOne(m mount) error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	return syscall.Mount(m.kind, m.target, m.kind, m.flags, m.options)
}

// linkDevices makes the links that devtmpfs lacks.
func linkDevices(folder string) error {
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
