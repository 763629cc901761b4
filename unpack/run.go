// The first process. It has the caller's rights and reads nothing of a stranger: it opens blobs, starts the room, and
// takes the disk out of it.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// victim is far above 0, the score of the daemon: a host without memory ends this first.
const victim = "600"

func init() {
	// A process that is to end with its parent ends with the thread that has started it.
	runtime.LockOSThread()
	// The room is read by another user, whatever the caller's umask is.
	syscall.Umask(0o022)
}

// self is this program, whatever happens to its name.
const self = "/proc/self/exe"

func run(directory string) error {
	wanted, err := readRequest(directory)
	if err != nil {
		return err
	}
	if err := endWith(wanted.Parent); err != nil {
		return err
	}
	blobs, err := openBlobs(wanted)
	if err != nil {
		return err
	}
	sources, err := openSources(wanted)
	if err != nil {
		return err
	}
	blobs = append(blobs, sources...)
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(victim), 0); err != nil {
		return err
	}
	if err := makeFolders(directory, wanted); err != nil {
		return err
	}
	room := exec.Command(self, "room", directory)
	room.Stdin, room.Stdout, room.Stderr, room.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, blobs
	room.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C"}
	room.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWUTS,
	}
	if os.Geteuid() == 0 {
		// Groups cannot be left later, in the user namespace.
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
	} else {
		room.Args[1] = "room-rootless"
		room.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		room.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		room.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := room.Start(); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := room.Wait(); err != nil {
		return endOf(err)
	}
	return takeOut(directory, wanted)
}

// endWith ends this process with its parent, also if that has ended already: then nobody waits for the disk, and
// another process may be about to empty the directory.
func endWith(parent int) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDeathSig, uintptr(syscall.SIGKILL), 0)
	if errno != 0 {
		return errno
	}
	if os.Getppid() != parent {
		return errors.New("the caller has ended")
	}
	return nil
}

// endOf tells why a later process has failed: it has told so itself, or was ended.
func endOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	const told, crashed = 1, 2
	switch exit.ExitCode() {
	case told:
		return errTold
	case crashed:
		return refuse("crashed", "the image makes the unpacker fail, or takes more memory than it may have")
	}
	status := exit.Sys().(syscall.WaitStatus)
	if status.Signal() == syscall.SIGXCPU || status.Signal() == syscall.SIGKILL {
		return refuse("crashed", "the image takes more processor time or memory than it may have")
	}
	return err
}

func openBlobs(wanted request) ([]*os.File, error) {
	if wanted.Layout == "" {
		return nil, nil
	}
	layout, err := syscall.Open(wanted.Layout, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: wanted.Layout, Err: err}
	}
	defer syscall.Close(layout)
	var blobs []*os.File
	for _, about := range wanted.Layers {
		fd, err := openBeneath(layout, filepath.Join("blobs/sha256", about.Digest), syscall.O_RDONLY|syscall.O_NONBLOCK)
		if err == syscall.ENOENT || err == syscall.ELOOP || err == syscall.ENOTDIR || err == syscall.EXDEV {
			return nil, refuse("missing_blob", "the blob %s is missing", about.Digest)
		}
		if err != nil {
			return nil, err
		}
		var found syscall.Stat_t
		if err := syscall.Fstat(fd, &found); err != nil {
			return nil, err
		}
		if found.Mode&syscall.S_IFMT != syscall.S_IFREG {
			return nil, refuse("missing_blob", "the blob %s is not a file", about.Digest)
		}
		if found.Size != about.Size {
			return nil, refuse("wrong_size", "the blob %s has %d bytes and should have %d", about.Digest, found.Size,
				about.Size)
		}
		blobs = append(blobs, os.NewFile(uintptr(fd), about.Digest))
	}
	return blobs, nil
}

// openSources opens a disk's files, whose paths are the caller's own.
func openSources(wanted request) ([]*os.File, error) {
	var files []*os.File
	for _, about := range wanted.Sources {
		file, err := os.OpenFile(about.Path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func makeFolders(directory string, wanted request) error {
	for _, name := range []string{"work", "room"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(filepath.Join(directory, "work"), wanted.UID, wanted.UID)
}

// takeOut moves the result out of the work's directory. That has had another owner, so nothing in it is followed.
func takeOut(directory string, wanted request) error {
	fd, err := syscall.Open(filepath.Join(directory, "work"), flagPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	out, err := syscall.Open(directory, flagPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(out)
	if len(wanted.Sources) > 0 {
		return takeFile(fd, out, layerFile)
	}
	store, err := openAt(fd, "content", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	syscall.Close(store)
	if err := renameAt(fd, "content", out, "content"); err != nil {
		return err
	}
	return takeFile(fd, out, "disk.raw")
}

// takeFile moves a file that may not have been made.
func takeFile(fd, out int, name string) error {
	disk, err := openAt(fd, name, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(disk)
	var found syscall.Stat_t
	if err := syscall.Fstat(disk, &found); err != nil {
		return err
	}
	if found.Mode&syscall.S_IFMT != syscall.S_IFREG || found.Nlink != 1 {
		return fmt.Errorf("%s is not a file", name)
	}
	if err := syscall.Fchown(disk, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	if err := syscall.Fchmod(disk, 0o600); err != nil {
		return err
	}
	return renameAt(fd, name, out, name)
}
