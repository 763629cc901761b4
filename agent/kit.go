// The kit: a small read-only disk of the host with kernel modules and programs for images that lack them. A guest of a
// machine without that disk runs without the kit.

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// kitSerial must equal the one in src/machine/command-line.ts.
	kitSerial   = "bhatti-kit"
	kitFolder   = "/run/bhatti/kit"
	blockFolder = "/sys/block"
)

// mountKit mounts the kit and offers the kernel its modules. It does nothing if there is no such disk.
func mountKit() error {
	device, err := findDisk(blockFolder, kitSerial)
	if device == "" || err != nil {
		return err
	}
	if err := os.MkdirAll(kitFolder, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("/dev/"+device, kitFolder, "ext4", syscall.MS_RDONLY|noSetuid|noDevices, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	if err := offerModules("/", kitFolder, strings.TrimSpace(string(release))); err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	return offerModprobe("/", "/proc/sys/kernel/modprobe")
}

// findDisk returns the name of the disk that the host gave this serial number; "" if there is none. It does not ask the
// root disk, which has no number.
func findDisk(folder, serial string) (string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "vd") || name == filepath.Base(rootDevice) {
			continue
		}
		found, err := os.ReadFile(filepath.Join(folder, name, "serial"))
		if err == nil && strings.TrimSpace(string(found)) == serial {
			return name, nil
		}
	}
	return "", nil
}

// offerModules mounts the kit's modules where the image has none for the running kernel.
func offerModules(root, kit, release string) error {
	target := filepath.Join(root, "lib/modules", release)
	source := filepath.Join(kit, "lib/modules", release)
	if _, err := os.Stat(filepath.Join(target, "modules.dep")); err == nil {
		return nil
	}
	if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
		return nil // A kit of another kernel.
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return syscall.Mount(source, target, "", syscall.MS_BIND, "")
}

// offerModprobe lets the kernel load modules by itself in an image without modprobe.
func offerModprobe(root, setting string) error {
	if _, err := os.Stat(filepath.Join(root, "sbin/modprobe")); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return os.WriteFile(setting, []byte(kitFolder+"/bin/modprobe"), 0)
}
