// The id of the boot, /proc/sys/kernel/random/boot_id. The kernel draws it when a program first reads it, so each clone
// of a template that nobody has read it in has its own. A copy of a sandbox has the memory of its source, and with it
// the source's id, which cannot be changed: a file in memory with another one is mounted over it.

package main

import (
	"os"
	"path/filepath"
	"syscall"
)

const (
	bootIDFile  = "boot_id"
	randomIDs   = "proc/sys/kernel/random"
	wholeFolder = "whole" // of memoryFolder
)

// renewBootID shows the guest another id from now on, until it boots.
func renewBootID(root string) error {
	id, err := os.ReadFile(filepath.Join(root, randomIDs, "uuid"))
	if err != nil {
		return err
	}
	folder := filepath.Join(root, memoryFolder)
	path := filepath.Join(folder, bootIDFile)
	if _, err := os.Stat(path); err == nil {
		// This one is a copy of a copy.
		return os.WriteFile(path, id, 0)
	}
	if err := keepWholeProc(filepath.Join(folder, wholeFolder)); err != nil {
		return err
	}
	if err := makeFile(path, id, 0o444); err != nil {
		return err
	}
	return syscall.Mount(path, filepath.Join(root, randomIDs, bootIDFile), "", syscall.MS_BIND, "")
}

// keepWholeProc mounts a /proc that nothing is mounted over. Without one the kernel lets no program without rights
// mount a /proc in namespaces of its own, as rootless containers do.
func keepWholeProc(folder string) error {
	path := filepath.Join(folder, "proc")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return err
	}
	return syscall.Mount("proc", path, "proc", noSetuid|noDevices|noPrograms, "")
}
