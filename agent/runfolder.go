// The image's /run, copied into memory within bounds.

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const (
	runEntriesMax = 4096
	runBytesMax   = 8 << 20
	runFileMax    = 1 << 20
)

// runBudget is what may still be copied.
type runBudget struct{ entries, bytes int64 }

// copyFolder copies directories, small files and links, with their owners and modes. It leaves out others, and all that
// exceeds the budget.
func (b *runBudget) copyFolder(folder int, target string) error {
	source := fmt.Sprintf("/proc/self/fd/%d", folder)
	names, err := readNames(source)
	if err != nil {
		return err
	}
	for _, name := range names {
		// The agent's own.
		if target == runFolder && name == filepath.Base(memoryFolder) {
			continue
		}
		if b.entries--; b.entries < 0 {
			return nil
		}
		if err := b.copyEntry(filepath.Join(source, name), filepath.Join(target, name)); err != nil {
			report("keep %s: %v", filepath.Join(target, name), err)
		}
	}
	return nil
}

func readNames(folder string) ([]string, error) {
	file, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names, err := file.Readdirnames(runEntriesMax)
	if err == io.EOF {
		return nil, nil
	}
	return names, err
}

func (b *runBudget) copyEntry(source, target string) error {
	var about syscall.Stat_t
	if err := syscall.Lstat(source, &about); err != nil {
		return err
	}
	switch about.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		link, err := os.Readlink(source)
		if err != nil {
			return err
		}
		if err := os.Symlink(link, target); err != nil {
			return err
		}
		return os.Lchown(target, int(about.Uid), int(about.Gid))
	case syscall.S_IFREG:
		if b.bytes -= about.Size; about.Size > runFileMax || b.bytes < 0 {
			return nil
		}
		content, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o600); err != nil {
			return err
		}
	case syscall.S_IFDIR:
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		folder, err := syscall.Open(source, flagPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = b.copyFolder(folder, target)
		syscall.Close(folder)
		if err != nil {
			return err
		}
	default:
		return nil
	}
	if err := os.Chown(target, int(about.Uid), int(about.Gid)); err != nil {
		return err
	}
	return syscall.Chmod(target, about.Mode&0o7777)
}
