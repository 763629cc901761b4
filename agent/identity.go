// The parts of a clone's identity, prepared in advance: everything that personalise changes is opened before a
// snapshot can be taken. A clone pays for the first run of any code and for every write to its disk, so files are
// opened while the template boots.
//
// The small files of /etc that carry an identity are files in memory, mounted over those of the disk, so that
// writing them costs no journal. As a consequence they cannot be replaced by rename or removed (as in a container),
// and a user's changes to them live in memory, which a snapshot keeps; they reach the disk at quiesce and at
// shutdown.

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const (
	hostnameFile  = "hostname"
	hostsFile     = "hosts"
	machineIDFile = "machine-id"
	resolverFile  = "resolv.conf"
)

var identityFiles = []string{hostnameFile, hostsFile, machineIDFile, resolverFile}

// memoryFolder holds the files that are mounted over those of /etc.
const memoryFolder = "run/bhatti"

// keptBytesMax limits the bytes copied between memory and disk.
const keptBytesMax = 1 << 20

// keptFile is one of those files. Without a mount it is only a path.
type keptFile struct {
	path   string
	memory int // -1: not mounted
	disk   int // the file below the mount, by O_PATH: an open writer would keep the disk from being unmounted
}

// prepared holds everything that personalise needs.
type prepared struct {
	files  map[string]*keptFile
	random int
	card   *card // nil if the machine has none
	// isComplete: the user and the workspace are there.
	isComplete bool
}

// prepare opens everything. It reports whatever cannot be opened and continues without it.
func prepare(root string) (*prepared, []error) {
	p := &prepared{files: map[string]*keptFile{}, random: -1}
	var failures []error
	note := func(what string, err error) {
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, name := range identityFiles {
		file := &keptFile{path: filepath.Join(root, "etc", name), memory: -1, disk: -1}
		p.files[name] = file
		note(file.path, file.mount(filepath.Join(root, memoryFolder)))
	}
	var err error
	p.random, err = syscall.Open("/dev/urandom", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	note("random numbers", err)
	p.card, err = openCard()
	note("network card", err)
	return p, failures
}

// mount mounts a file in memory over the one of the disk.
func (f *keptFile) mount(folder string) error {
	for _, needed := range []string{folder, filepath.Dir(f.path)} {
		if err := os.MkdirAll(needed, 0o755); err != nil {
			return err
		}
	}
	content, err := readKept(f.path)
	if err != nil {
		return err
	}
	// The mount needs a regular file to cover, so a missing file or a link into a service that does not run here is
	// replaced.
	if err := keepFile(f.path, content); err != nil {
		return err
	}
	memory := filepath.Join(folder, filepath.Base(f.path))
	if err := makeFile(memory, content, 0o644); err != nil {
		return err
	}
	disk, err := syscall.Open(f.path, flagPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Mount(memory, f.path, "", syscall.MS_BIND, ""); err != nil {
		syscall.Close(disk)
		return err
	}
	opened, err := syscall.Open(memory, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.memory, f.disk = opened, disk
	return nil
}

// readKept reads a small file; a missing file is empty.
func readKept(path string) ([]byte, error) {
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, keptBytesMax))
}

// isMounted: the file in memory is the one that programs see. Root may have unmounted it, as systemd does with the
// machine id at its first boot.
func (f *keptFile) isMounted() bool {
	var seen, memory syscall.Stat_t
	return f.memory >= 0 && syscall.Stat(f.path, &seen) == nil && syscall.Fstat(f.memory, &memory) == nil &&
		seen.Dev == memory.Dev && seen.Ino == memory.Ino
}

func (f *keptFile) read() ([]byte, error) {
	if !f.isMounted() {
		return readKept(f.path)
	}
	content := make([]byte, 4096)
	for {
		n, err := syscall.Pread(f.memory, content, 0)
		if err != nil {
			return nil, err
		}
		if n < len(content) || n >= keptBytesMax {
			return content[:n], nil
		}
		content = make([]byte, 2*len(content))
	}
}

func (f *keptFile) write(content []byte) error {
	if !f.isMounted() {
		return keepFile(f.path, content)
	}
	before, err := f.read()
	if err != nil {
		return err
	}
	if _, err := syscall.Pwrite(f.memory, content, 0); err != nil {
		return err
	}
	if len(content) >= len(before) {
		return nil
	}
	return syscall.Ftruncate(f.memory, int64(len(content)))
}

// store writes the files in memory to the disk, for a boot from it.
func (p *prepared) store() error {
	for _, file := range p.files {
		if !file.isMounted() {
			continue
		}
		content, err := file.read()
		if err == nil {
			err = file.writeDisk(content)
		}
		if err != nil {
			return fmt.Errorf("store %s: %w", file.path, err)
		}
	}
	return nil
}

func (f *keptFile) writeDisk(content []byte) error {
	disk, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.disk), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	current, err := io.ReadAll(io.LimitReader(disk, keptBytesMax+1))
	if err != nil || string(current) == string(content) {
		return err
	}
	if _, err := disk.WriteAt(content, 0); err != nil {
		return err
	}
	return disk.Truncate(int64(len(content)))
}
